"""Our network in its plain form: what each layer computes, operation by operation, in PyTorch's default memory format.

The same modules with the same weights give the same outputs up to rounding. Frozen norms are a product and a sum,
attention is explicit, the mask head sees features and attention maps of every query, and the losses are computed layer
by layer. This is close to what the published code computes, but it is not that code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import MultiheadAttention
from models.criterion import SetCriterion
from models.fast import dropout
from models.segmentation import MaskHeadSmallConv, dice_loss, sigmoid_focal_loss


class SeparateNorm(nn.Module):
    """A frozen batch norm as a product and a sum: [B, C, h, w] → the same shape."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", (norm.bias - norm.running_mean * scale).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class EveryQuery(nn.Module):
    """A mask head that repeats the features of an image for each query."""

    def __init__(self, head: MaskHeadSmallConv):
        super().__init__()
        self.head = head

    def forward(self, x: Tensor, bbox_mask: Tensor, fpns: list[Tensor]) -> Tensor:
        """As `MaskHeadSmallConv.forward`."""
        head, queries = self.head, bbox_mask.shape[1]
        x = torch.cat([x.repeat_interleave(queries, 0), bbox_mask.flatten(0, 1)], dim=1)  # [B·Q, D + N, h, w]
        x = F.relu(head.gn1(head.lay1(x)))
        x = F.relu(head.gn2(head.lay2(x)))
        finer = [(head.adapter1, head.lay3, head.gn3), (head.adapter2, head.lay4, head.gn4)]
        for (adapter, layer, norm), level in zip([*finer, (head.adapter3, head.lay5, head.gn5)], fpns):
            level = adapter(level).repeat_interleave(queries, 0)
            x = F.relu(norm(layer(level + F.interpolate(x, size=level.shape[-2:], mode="nearest"))))
        return head.out_lay(x)  # [B·Q, 1, H/4, W/4]


class LayerByLayer(SetCriterion):
    """The criterion with a pass for each decoder layer, and with all masks in their full size at once."""

    def _is_own(self, loss: str) -> bool:
        return False

    def loss_masks(
        self,
        outputs: dict[str, Tensor],
        targets: Sequence[dict[str, Tensor]],
        indices: Sequence[tuple[Tensor, Tensor]],
        num_boxes: Tensor | float,
        padded_size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        """As the base class, for images of one size."""
        chosen = [masks[queries] for masks, (queries, _) in zip(outputs["pred_masks"], indices)]
        truth = torch.cat([target["masks"][objects] for target, (_, objects) in zip(targets, indices)])  # [M, H, W]
        logits = F.interpolate(torch.cat(chosen)[:, None], size=truth.shape[-2:], mode="bilinear")[:, 0].flatten(1)
        truth = truth.flatten(1).to(logits.dtype)
        return {
            "loss_mask": sigmoid_focal_loss(logits, truth, num_boxes),
            "loss_dice": dice_loss(logits, truth, num_boxes),
        }


def to_plain(model: nn.Module, criterion: nn.Module) -> None:
    """Change a detector and its criterion to their plain forms, and dropout in this process to PyTorch's."""
    dropout.dropout = F.dropout
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if hasattr(child, "running_var") and not isinstance(child, nn.BatchNorm2d):
                setattr(module, name, SeparateNorm(child))
            elif isinstance(child, MaskHeadSmallConv):
                setattr(module, name, EveryQuery(child))
        if isinstance(module, MultiheadAttention):
            module.fused = False
        if hasattr(module, "fast"):  # the backbone's parts
            module.fast = False
        if hasattr(module, "defer_masks"):
            module.defer_masks = False
    model.to(memory_format=torch.contiguous_format)
    criterion.__class__ = LayerByLayer
