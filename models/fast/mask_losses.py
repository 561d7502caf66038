"""Focal and Dice loss of mask logits with little memory: a few masks at a time, with gradients computed on the way.

The plain form, `sigmoid_focal_loss` and `dice_loss` of `models.segmentation`, keeps about a dozen values per pixel of
the full-size masks for its gradients. Both losses are sums over masks, so here each mask is resized, compared and
forgotten while it is in the cache, and only the gradients with respect to the small logits are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ALPHA = 0.25  # of the focal loss; gamma is 2
PIXELS_AT_ONCE = {"cpu": 1 << 18}  # what a cache holds
PIXELS_ELSEWHERE = 1 << 22  # enough to keep a GPU busy; 16 MB for each intermediate result


def mask_losses(logits: Tensor, masks: Tensor, num_boxes: Tensor | float, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Focal and Dice loss of pairs of masks, each summed over the pairs and divided by `num_boxes`.

    Args:
        logits: [M, h, w], float32 or float64.
        masks: bool [M, H, W].
        size: (height, width) to which the logits are resized (bilinear). It covers H × W; what is beyond is ignored.

    Returns:
        The two losses. They can be differentiated once, with respect to the logits.
    """
    focal, dice = _MaskLosses.apply(logits, masks, tuple(size))
    return focal / num_boxes, dice / num_boxes


class _MaskLosses(torch.autograd.Function):
    """(logits [M, h, w], masks [M, H, W], size) → both losses, without a divisor."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, masks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad[0]
        height, width = masks.shape[1:]
        pixels = PIXELS_AT_ONCE.get(logits.device.type, PIXELS_ELSEWHERE)
        at_once = max(1, pixels // (height * width))
        rows, columns = _weights(logits, 1, size[0], height), _weights(logits, 2, size[1], width)
        losses, slopes = [], []
        for part, truth in zip(logits.split(at_once), masks.split(at_once)):
            large = F.interpolate(part[:, None], size=size, mode="bilinear", align_corners=False)
            large = large[:, 0, :height, :width].flatten(1)  # [m, H·W]
            values, gradients = _losses_of_pixels(large, truth.flatten(1), wanted)
            losses.append(values)
            if wanted:  # back to the small size, by matrix products: many times faster than PyTorch's own way on a CPU
                with torch.autocast(logits.device.type, enabled=False):
                    small = [rows @ each.unflatten(1, (height, width)) @ columns.t() for each in gradients]
                slopes.append(torch.stack(small))  # [2, m, h, w]
        if wanted:
            ctx.save_for_backward(torch.cat(slopes, dim=1))
        focal, dice = torch.stack(losses).sum(0)
        return focal, dice

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, focal: Tensor, dice: Tensor) -> tuple[Tensor, None, None]:
        slopes = ctx.saved_tensors[0]
        return slopes[0] * focal + slopes[1] * dice, None, None


def _weights(logits: Tensor, axis: int, size: int, kept: int) -> Tensor:
    """Resizing along an axis as a matrix [n, kept]: n cells become `size` cells, of which the first `kept` count."""
    identity = torch.eye(logits.shape[axis], dtype=logits.dtype, device=logits.device)
    return F.interpolate(identity[None], size=size, mode="linear", align_corners=False)[0, :, :kept]


def _losses_of_pixels(x: Tensor, masks: Tensor, gradients: bool) -> tuple[Tensor, list[Tensor]]:
    """Focal and Dice loss [2] of logits [m, P] for masks bool [m, P], and their gradients [m, P] on request.

    With z = x outside of the object and -x inside, the probability of error is p = sigmoid(z) and the cross-entropy
    log(1 + exp(z)), which saves the separate treatment of both cases.
    """
    truth = masks.to(x.dtype)
    sign = 1 - 2 * truth  # dz/dx
    z = x * sign
    p = z.sigmoid()
    entropy = F.logsigmoid(-z).neg_()
    weight = (1 - ALPHA + (2 * ALPHA - 1) * truth).div_(x.shape[1])  # the mean over pixels
    square = p.square()
    focal = (entropy * square).mul_(weight).sum()
    area = truth.sum(1)
    missed = (p * truth).sum(1)
    overlap = 2 * (area - missed) + 1
    total = (p * sign).sum(1) + 2 * area + 1  # the probabilities' sum is that of p * sign and the area
    dice = (1 - overlap / total).sum()
    if not gradients:
        return torch.stack([focal, dice]), []
    rest = 1 - p
    # d focal / dz = weight · p² (p + 2 · entropy · (1 - p))
    focal_slope = entropy.mul_(rest).mul_(2).add_(p).mul_(square).mul_(weight).mul_(sign)
    # d dice / d probability = overlap / total² - 2 / total · truth
    dice_slope = rest.mul_(p).mul_(torch.addcmul((overlap / total.square())[:, None], truth, -2 / total[:, None]))
    return torch.stack([focal, dice]), [focal_slope, dice_slope]
