"""Masks for DETR (paper, section 4.4 and figure 8): an attention map for every query, and a small FPN that sharpens it.

Shapes: `B` batch, `Q` object queries, `D` transformer width, `N` attention heads; `h`, `w` the transformer's feature
map; a mask has the size of the backbone's finest level, a quarter of the padded image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.panoptic import PostProcessPanoptic
from models.postprocess import PostProcessSegm
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list

__all__ = [
    "DETRsegm",
    "MHAttentionMap",
    "MaskHeadSmallConv",
    "PostProcessPanoptic",
    "PostProcessSegm",
    "dice_loss",
    "sigmoid_focal_loss",
]

GROUPS = 8  # of every group norm in the mask head


class DETRsegm(nn.Module):
    """A detector with a mask for every query.

    Args:
        detr: a `DETR` whose backbone returns all four levels.
        freeze_detr: only the mask head learns. The detector then also stays in evaluation mode, so that the features
            that the mask head learns from are those it will see; the published code lets dropout change them.
        query_chunk: the most queries whose masks are computed at once outside of training. The head's memory grows
            with it, for an image of 800 × 1333 and ResNet-50 by 22 MB a query: 0.6 GB for 25, 2.3 GB for all 100.
            None: all at once.

    Raises:
        ValueError: the backbone returns one level only, or a width that the head's group norms cannot divide.
    """

    def __init__(self, detr: nn.Module, freeze_detr: bool = False, *, query_chunk: int | None = 25):
        super().__init__()
        self.detr = detr
        self.freeze_detr = freeze_detr
        if freeze_detr:
            self.detr.requires_grad_(False)
        channels = detr.backbone[0].channels
        if len(channels) != 4:
            raise ValueError(
                "the mask head needs all four levels of the backbone: build it with return_interm_layers=True"
            )
        hidden_dim, nheads = detr.transformer.d_model, detr.transformer.nhead
        self.bbox_attention = MHAttentionMap(hidden_dim, hidden_dim, nheads, dropout=0.0)
        fpn_dims = list(channels[2::-1])  # layer3, layer2, layer1
        self.mask_head = MaskHeadSmallConv(hidden_dim + nheads, fpn_dims, hidden_dim, query_chunk=query_chunk)

    def train(self, mode: bool = True) -> DETRsegm:
        super().train(mode)
        if self.freeze_detr:
            self.detr.eval()
        return self

    def forward(self, samples: NestedTensor) -> dict[str, Tensor]:
        """What `DETR` returns for the batch, and `pred_masks`: logits [B, Q, H/4, W/4] over the padded image."""
        if not isinstance(samples, NestedTensor):
            samples = nested_tensor_from_tensor_list(samples)
        found = self.detr.detect(samples)
        attention = self.bbox_attention(found.queries, found.memory, found.mask)  # [B, Q, N, h, w]
        levels = [found.features[2].tensors, found.features[1].tensors, found.features[0].tensors]
        masks = self.mask_head(found.projected, attention, levels)  # [B·Q, 1, H/4, W/4]
        outputs = found.outputs
        outputs["pred_masks"] = masks[:, 0].unflatten(0, [attention.shape[0], attention.shape[1]])
        return outputs


class MHAttentionMap(nn.Module):
    """How much each query looks at each place: attention without values.

    Args:
        query_dim, hidden_dim: widths of what comes in and of the space of comparison.
        num_heads: N.
        dropout: share of the weights dropped in training.
        bias: of the two projections.
    """

    def __init__(self, query_dim: int, hidden_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True):
        super().__init__()
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.dropout = nn.Dropout(dropout)
        self.q_linear = nn.Linear(query_dim, hidden_dim, bias=bias)
        self.k_linear = nn.Linear(query_dim, hidden_dim, bias=bias)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            if bias:
                nn.init.zeros_(linear.bias)

    def forward(self, q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        """Weights that sum to 1 over heads and places together.

        Args:
            q: queries [B, Q, query_dim].
            k: features [B, query_dim, h, w].
            mask: bool [B, h, w], True = padding, looked at by nobody.

        Returns:
            [B, Q, N, h, w]
        """
        height, width = k.shape[-2], k.shape[-1]
        width_of_head = self.hidden_dim // self.num_heads
        queries = self.q_linear(q).unflatten(-1, [self.num_heads, width_of_head])  # [B, Q, N, d]
        keys = self.k_linear(k.flatten(2).transpose(1, 2)).unflatten(-1, [self.num_heads, width_of_head])
        scores = (queries.transpose(1, 2) / math.sqrt(width_of_head)) @ keys.permute(0, 2, 3, 1)  # [B, N, Q, h·w]
        if mask is not None:
            scores = scores.masked_fill(mask.flatten(1)[:, None, None], float("-inf"))
        weights = scores.transpose(1, 2).flatten(2).softmax(-1)  # [B, Q, N·h·w]
        return self.dropout(weights.view(q.shape[0], q.shape[1], self.num_heads, height, width))


class MaskHeadSmallConv(nn.Module):
    """Convolutions that turn attention maps into masks, over three finer levels of the backbone.

    The first layer sees the features and the attention maps side by side. Convolution is linear, so the features'
    part of it is computed once for an image and not for every query.

    Args:
        dim: context_dim + N.
        fpn_dims: channels of the three levels, from coarse to fine.
        context_dim: channels of the features, D.
        query_chunk: see `DETRsegm`.

    Raises:
        ValueError: group norm cannot divide a width.
    """

    def __init__(self, dim: int, fpn_dims: list[int], context_dim: int, *, query_chunk: int | None = None):
        super().__init__()
        widths = [dim, context_dim // 2, context_dim // 4, context_dim // 8, context_dim // 16]
        if any(width == 0 or width % GROUPS for width in widths):
            raise ValueError(
                f"a mask head on {context_dim} channels and {dim - context_dim} heads has layers of {widths} channels, "
                f"and its group norms need multiples of {GROUPS}: use --hidden_dim 128, 256, 384 or another multiple "
                "of 128, and --nheads 8, 16, 32 or another multiple of 8"
            )
        if query_chunk is not None and query_chunk < 1:
            raise ValueError(f"query_chunk is {query_chunk}: use 1 or more, or None for all queries at once")
        self.context_dim = context_dim
        self.query_chunk = query_chunk
        self.lay1 = _conv3x3(widths[0], widths[0])
        self.gn1 = nn.GroupNorm(GROUPS, widths[0])
        self.lay2 = _conv3x3(widths[0], widths[1])
        self.gn2 = nn.GroupNorm(GROUPS, widths[1])
        self.lay3 = _conv3x3(widths[1], widths[2])
        self.gn3 = nn.GroupNorm(GROUPS, widths[2])
        self.lay4 = _conv3x3(widths[2], widths[3])
        self.gn4 = nn.GroupNorm(GROUPS, widths[3])
        self.lay5 = _conv3x3(widths[3], widths[4])
        self.gn5 = nn.GroupNorm(GROUPS, widths[4])
        self.out_lay = _conv3x3(widths[4], 1)
        self.adapter1 = nn.Conv2d(fpn_dims[0], widths[1], 1)
        self.adapter2 = nn.Conv2d(fpn_dims[1], widths[2], 1)
        self.adapter3 = nn.Conv2d(fpn_dims[2], widths[3], 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, bbox_mask: Tensor, fpns: list[Tensor]) -> Tensor:
        """Masks of all queries.

        Args:
            x: features [B, D, h, w].
            bbox_mask: attention maps [B, Q, N, h, w].
            fpns: the three levels [B, fpn_dims[i], h_i, w_i].

        Returns:
            Logits [B·Q, 1, h_2, w_2].
        """
        levels = [self.adapter1(fpns[0]), self.adapter2(fpns[1]), self.adapter3(fpns[2])]
        shared = F.conv2d(x, self.lay1.weight[:, : self.context_dim], self.lay1.bias, padding=1)  # [B, dim, h, w]
        chunk = bbox_mask.shape[1]
        if self.query_chunk is not None and not self.training:
            chunk = self.query_chunk
        masks = [self._decode(shared, part, levels) for part in bbox_mask.split(chunk, dim=1)]
        return torch.cat(masks, dim=1).flatten(0, 1)

    def _decode(self, shared: Tensor, bbox_mask: Tensor, levels: list[Tensor]) -> Tensor:
        """Masks [B, q, 1, h_2, w_2] of some queries [B, q, N, h, w]."""
        batch, queries = bbox_mask.shape[0], bbox_mask.shape[1]
        x = F.conv2d(bbox_mask.flatten(0, 1), self.lay1.weight[:, self.context_dim :], padding=1)  # [B·q, dim, h, w]
        x = (x.unflatten(0, [batch, queries]) + shared[:, None]).flatten(0, 1)
        x = F.relu(self.gn1(x))
        x = F.relu(self.gn2(self.lay2(x)))
        x = F.relu(self.gn3(self.lay3(_add_level(x, levels[0]))))
        x = F.relu(self.gn4(self.lay4(_add_level(x, levels[1]))))
        x = F.relu(self.gn5(self.lay5(_add_level(x, levels[2]))))
        return self.out_lay(x).unflatten(0, [batch, queries])


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _add_level(x: Tensor, level: Tensor) -> Tensor:
    """Grow x [B·q, c, h, w] to the size of a level [B, c, h', w'] and add that to every query."""
    x = F.interpolate(x, size=level.shape[-2:], mode="nearest")
    return (x.unflatten(0, [level.shape[0], -1]) + level[:, None]).flatten(0, 1)


def dice_loss(inputs: Tensor, targets: Tensor, num_boxes: Tensor | float) -> Tensor:
    """1 − the Dice coefficient of each pair of masks, smoothed by one pixel (paper, section 4.4; Milletari, 2016).

    Args:
        inputs: logits [M, pixels].
        targets: 0 or 1 [M, pixels].
        num_boxes: what the sum over pairs is divided by.
    """
    probabilities = inputs.sigmoid().flatten(1)
    overlap = (probabilities * targets).sum(1)
    return (1 - (2 * overlap + 1) / (probabilities.sum(1) + targets.sum(1) + 1)).sum() / num_boxes


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, num_boxes: Tensor | float, alpha: float = 0.25, gamma: float = 2
) -> Tensor:
    """Focal loss (Lin et al., 2017), a mean over the pixels of each pair, summed over pairs.

    Args:
        inputs: logits [M, pixels].
        targets: 0 or 1 [M, pixels].
        num_boxes: what the sum over pairs is divided by.
        alpha: weight of object against 1 − alpha of ground; negative: both weigh 1.
        gamma: how much less a pixel counts the surer it is right.
    """
    probabilities = inputs.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    missed = probabilities * (1 - targets) + (1 - probabilities) * targets  # 1 − probability of the truth
    loss = entropy * missed**gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return loss.mean(1).sum() / num_boxes
