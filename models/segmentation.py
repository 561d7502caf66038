"""Masks for DETR (paper, section 4.4 and figure 8): an attention map for every query, refined by a small FPN.

Shapes: `B` batch, `Q` object queries, `D` transformer width, `N` attention heads; `h`, `w` the transformer's feature
map. A mask has the size of the finest backbone level, a quarter of the padded image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fast.masks_on_demand import MasksOnDemand
from models.fast.resized_conv import conv_of_resized
from models.panoptic import PostProcessPanoptic
from models.postprocess import PostProcessSegm
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list

if TYPE_CHECKING:
    from models.detr import DetectorOutput

__all__ = [
    "DETRsegm",
    "MHAttentionMap",
    "MaskHeadSmallConv",
    "PostProcessPanoptic",
    "PostProcessSegm",
    "dice_loss",
    "sigmoid_focal_loss",
]

GROUPS = 8  # in every group norm of the mask head


class DETRsegm(nn.Module):
    """A detector that also predicts a mask for every query.

    Args:
        detr: a `DETR` whose backbone returns all four levels.
        freeze_detr: train only the mask head. The detector then stays in evaluation mode, so that the mask head is
            trained on the same features that it gets at inference; the published code keeps dropout active.
        query_chunk: the largest number of queries whose masks are computed at once outside of training. Memory grows
            with it: by about 10 MB per query for an image of 800 × 1333 and ResNet-50. None: all at once.
        defer_masks: in training compute masks when they are read, and for the loss only those of matched queries. The
            losses and gradients are the same. False: all of them in every forward pass, as published.

    Raises:
        ValueError: the backbone returns only one level, or the group norms of the mask head cannot divide a width.
    """

    never_compiled = ("on_demand",)  # the detector within is compiled, the masks' number changes every time

    def __init__(
        self, detr: nn.Module, freeze_detr: bool = False, *, query_chunk: int | None = 10, defer_masks: bool = True
    ):
        super().__init__()
        self.defer_masks = defer_masks
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
        """The outputs of `DETR` and `pred_masks`, logits [B, Q, H/4, W/4] over the padded image.

        In training the masks are computed when they are read, see `on_demand`.
        """
        if not torch.jit.is_scripting():
            if self.training and self.defer_masks and not torch.compiler.is_exporting():
                return self.on_demand(samples)
        if not isinstance(samples, NestedTensor):
            samples = nested_tensor_from_tensor_list(samples)
        found = self.detr.detect(samples)
        attention = self.bbox_attention(found.queries, found.memory, found.mask)  # [B, Q, N, h, w]
        levels = [found.features[2].tensors, found.features[1].tensors, found.features[0].tensors]
        masks = self.mask_head(found.projected, attention, levels)  # [B·Q, 1, H/4, W/4]
        outputs = found.outputs
        outputs["pred_masks"] = masks[:, 0].unflatten(0, [attention.shape[0], attention.shape[1]])
        return outputs

    @torch.jit.unused
    def on_demand(self, samples: NestedTensor | Tensor | list[Tensor]) -> MasksOnDemand:
        """The outputs of `forward`, whose masks are computed when they are read, all or those of some queries."""
        if not isinstance(samples, NestedTensor):
            samples = nested_tensor_from_tensor_list(samples)
        found = self.detr.detect(samples)

        def masks_of(queries: Sequence[Tensor] | None) -> Tensor:
            chosen = [torch.arange(found.queries.shape[1])] * len(found.queries) if queries is None else queries
            masks = self._masks_of(found, chosen)
            return masks if queries is not None else masks.unflatten(0, [len(found.queries), -1])

        return MasksOnDemand(found.outputs, masks_of, found.memory.device.type)

    def _masks_of(self, found: DetectorOutput, queries: Sequence[Tensor]) -> Tensor:
        """Masks [Σ n_i, H/4, W/4] of some queries of each image; the others' are not computed."""
        maps = self.mask_head.per_image(found.projected, [found.features[i].tensors for i in (2, 1, 0)])
        count = sum(len(chosen) for chosen in queries)
        if count == 0:  # one mask that is not returned keeps the graph, with gradients of 0 for all weights
            queries = [torch.zeros(1, dtype=torch.int64), *queries[1:]]
        masks = []
        for image, chosen in enumerate(queries):
            if len(chosen):
                own = slice(image, image + 1)
                picked = found.queries[own].index_select(1, chosen.to(found.queries.device, non_blocking=True))
                attention = self.bbox_attention(picked, found.memory[own], found.mask[own])  # [1, n_i, N, h, w]
                masks.append(self.mask_head.decode(attention, [level[own] for level in maps])[0, :, 0])
        return torch.cat(masks)[:count]


class MHAttentionMap(nn.Module):
    """Attention weights of each query over the feature map: multi-head attention without values.

    Args:
        query_dim: width of queries and features.
        hidden_dim: width of their projections, over all heads.
        num_heads: N.
        dropout: rate at which weights are dropped in training.
        bias: whether the two projections have biases.
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
        """Attention weights, which sum to 1 over all heads and positions together.

        Args:
            q: queries [B, Q, query_dim].
            k: features [B, query_dim, h, w].
            mask: bool [B, h, w], True = padding, which gets no attention.

        Returns:
            [B, Q, N, h, w]
        """
        height, width = k.shape[-2], k.shape[-1]
        head_dim = self.hidden_dim // self.num_heads
        queries = self.q_linear(q).unflatten(-1, [self.num_heads, head_dim])  # [B, Q, N, d]
        keys = self.k_linear(k.flatten(2).transpose(1, 2)).unflatten(-1, [self.num_heads, head_dim])
        scores = (queries.transpose(1, 2) / math.sqrt(head_dim)) @ keys.permute(0, 2, 3, 1)  # [B, N, Q, h·w]
        if mask is not None:
            scores = scores.masked_fill(mask.flatten(1)[:, None, None], float("-inf"))
        weights = scores.transpose(1, 2).flatten(2).softmax(-1)  # [B, Q, N·h·w]
        return self.dropout(weights.view(q.shape[0], q.shape[1], self.num_heads, height, width))


class MaskHeadSmallConv(nn.Module):
    """Convolutions that turn attention maps into masks with the help of three finer backbone levels.

    The input of the first layer is the concatenation of features and attention maps; that of the layers 3 to 5 is the
    sum of the resized map and a finer level: `plain_forward` shows it. Convolution is linear, so in `forward` the parts
    of the features and of the levels are computed once per image instead of once per query, and the resized map is
    never built, see `conv_of_resized`.

    Args:
        dim: context_dim + N.
        fpn_dims: channels of the three levels, coarsest first.
        context_dim: channels of the features, D.
        query_chunk: see `DETRsegm`.

    Raises:
        ValueError: the group norms cannot divide a width, or `query_chunk` is less than 1.
    """

    def __init__(self, dim: int, fpn_dims: list[int], context_dim: int, *, query_chunk: int | None = None):
        super().__init__()
        widths = [dim, context_dim // 2, context_dim // 4, context_dim // 8, context_dim // 16]
        if any(width == 0 or width % GROUPS for width in widths):
            raise ValueError(
                f"with {context_dim} channels and {dim - context_dim} heads the layers of the mask head have {widths} "
                f"channels, but its group norms need multiples of {GROUPS}: use --hidden_dim 128, 256, 384 or another "
                "multiple of 128, and --nheads 8, 16, 32 or another multiple of 8"
            )
        if query_chunk is not None and query_chunk < 1:
            raise ValueError(f"query_chunk must be at least 1, or None for all queries at once, got {query_chunk}")
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
        """Compute the masks of all queries.

        Args:
            x: features [B, D, h, w].
            bbox_mask: attention maps [B, Q, N, h, w].
            fpns: the three levels [B, fpn_dims[i], h_i, w_i].

        Returns:
            Logits [B·Q, 1, h_2, w_2].
        """
        return self.decode(bbox_mask, self.per_image(x, fpns)).flatten(0, 1)

    def plain_forward(self, x: Tensor, bbox_mask: Tensor, fpns: list[Tensor]) -> Tensor:
        """The plain form of `forward`, as in figure 8 of the paper: every query has its own copy of the features."""
        queries = bbox_mask.shape[1]
        x = torch.cat([x.repeat_interleave(queries, 0), bbox_mask.flatten(0, 1)], dim=1)  # [B·Q, dim, h, w]
        x = self.gn1(self.lay1(x)).relu()
        x = self.gn2(self.lay2(x)).relu()
        steps = [(self.adapter1, self.lay3, self.gn3), (self.adapter2, self.lay4, self.gn4)]
        for level, (adapter, layer, norm) in zip(fpns, [*steps, (self.adapter3, self.lay5, self.gn5)]):
            x = F.interpolate(x, size=level.shape[-2:]) + adapter(level).repeat_interleave(queries, 0)
            x = norm(layer(x)).relu()
        return self.out_lay(x)

    def per_image(self, x: Tensor, fpns: list[Tensor]) -> list[Tensor]:
        """What the levels contribute to the outputs of layers 1, 3, 4 and 5, with the bias, the same for all queries.

        Args:
            x, fpns: as in `forward`.

        Returns:
            Four maps [B, width of the layer, h_i, w_i].
        """
        maps = [F.conv2d(x, self.lay1.weight[:, : self.context_dim], self.lay1.bias, padding=1)]
        maps.append(self.lay3(self.adapter1(fpns[0])))
        maps.append(self.lay4(self.adapter2(fpns[1])))
        maps.append(self.lay5(self.adapter3(fpns[2])))
        return [_convolution_format(level) for level in maps]

    def decode(self, bbox_mask: Tensor, maps: list[Tensor]) -> Tensor:
        """The masks of some queries, outside of training at most `query_chunk` of each image at once.

        Args:
            bbox_mask: attention maps [B, q, N, h, w].
            maps: from `per_image`.

        Returns:
            Logits [B, q, 1, h_2, w_2].
        """
        if self.query_chunk is None or self.training:
            return self._decode(bbox_mask, maps)
        return torch.cat([self._decode(part, maps) for part in bbox_mask.split(self.query_chunk, dim=1)], dim=1)

    def _decode(self, bbox_mask: Tensor, maps: list[Tensor]) -> Tensor:
        """Logits [B, q, 1, h_2, w_2]."""
        x = _convolution_format(bbox_mask.flatten(0, 1))
        x = F.conv2d(x, self.lay1.weight[:, self.context_dim :], padding=1)  # [B·q, dim, h, w]
        x = self.gn1(_add_to_queries(x, maps[0])).relu_()
        x = self.gn2(self.lay2(x)).relu_()
        x = self.gn3(_finer(x, self.lay3.weight, maps[1])).relu_()
        x = self.gn4(_finer(x, self.lay4.weight, maps[2])).relu_()
        x = self.gn5(_finer(x, self.lay5.weight, maps[3])).relu_()
        return self.out_lay(x).unflatten(0, [bbox_mask.shape[0], bbox_mask.shape[1]])


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _finer(x: Tensor, weight: Tensor, level: Tensor) -> Tensor:
    """Convolve x [B·q, c, h, w], resized to the size of a level, and add the level's share [B, d, h', w']."""
    return _add_to_queries(conv_of_resized(x, weight, level.shape[-2], level.shape[-1]), level)


def _add_to_queries(x: Tensor, level: Tensor) -> Tensor:
    """Add a map of each image [B, d, h, w] to those of all its queries [B·q, d, h, w]."""
    return (x.unflatten(0, [level.shape[0], -1]) + level[:, None]).flatten(0, 1)


def _convolution_format(x: Tensor) -> Tensor:
    """x in the memory format in which convolutions are fastest: on a CPU the channels of a pixel side by side."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def dice_loss(inputs: Tensor, targets: Tensor, num_boxes: Tensor | float) -> Tensor:
    """One minus the Dice coefficient of each pair of masks, smoothed by one pixel (Milletari et al., 2016).

    Args:
        inputs: logits [M, pixels].
        targets: 0 or 1 [M, pixels].
        num_boxes: the divisor of the sum over pairs.
    """
    probabilities = inputs.sigmoid().flatten(1)
    overlap = (probabilities * targets).sum(1)
    return (1 - (2 * overlap + 1) / (probabilities.sum(1) + targets.sum(1) + 1)).sum() / num_boxes


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, num_boxes: Tensor | float, alpha: float = 0.25, gamma: float = 2
) -> Tensor:
    """Focal loss (Lin et al., 2017): the mean over the pixels of each pair, summed over pairs.

    Args:
        inputs: logits [M, pixels].
        targets: 0 or 1 [M, pixels].
        num_boxes: the divisor of the sum over pairs.
        alpha: weight of object pixels, 1 − alpha for background pixels. Negative: all pixels have weight 1.
        gamma: focusing exponent; a larger one reduces the contribution of confident, correct pixels.
    """
    probabilities = inputs.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    missed = probabilities * (1 - targets) + (1 - probabilities) * targets  # 1 − probability of the truth
    loss = entropy * missed**gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return loss.mean(1).sum() / num_boxes
