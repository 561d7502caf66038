"""A 3×3 convolution of a map that was doubled by nearest neighbours, computed on the small map.

Each row of the doubled map occurs twice, so three taps meet only two different rows: four taps of a transposed
convolution with stride 2 do the work of nine (a 2.25th of the products), and the large map is never built.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def conv_of_resized(x: Tensor, weight: Tensor, height: int, width: int) -> Tensor:
    """`F.conv2d(F.interpolate(x, (height, width), mode="nearest"), weight, padding=1)`, up to rounding.

    Fast for sizes of 2h or 2h - 1, the ratios between levels of a backbone. Others take the plain form, as do exported
    and compiled models, whose sizes are open: each combination of even and odd sizes would be compiled by itself.

    Args:
        x: [N, C, h, w].
        weight: [D, C, 3, 3].

    Returns:
        [N, D, height, width]
    """
    if not torch.jit.is_scripting():
        if torch.compiler.is_compiling():
            return _plain(x, weight, height, width)
    h, w = x.shape[-2], x.shape[-1]
    if not (2 * h - 1 <= height <= 2 * h and 2 * w - 1 <= width <= 2 * w):
        return _plain(x, weight, height, width)
    out = F.conv_transpose2d(x, doubled_kernel(weight).transpose(0, 1), stride=2, padding=1)  # [N, D, 2h, 2w]
    # Where a side is odd, the doubled map ends one row earlier, so the last row meets zeros instead of that row.
    out = out[..., :height, :width]
    if height < 2 * h:
        out[..., -1:, :] = _plain(x[..., -2:, :], weight, min(h, 2), width)[..., -1:, :]
    if width < 2 * w:
        out[..., -1:] = _plain(x[..., -2:], weight, height, min(w, 2))[..., -1:]
    return out


def doubled_kernel(weight: Tensor) -> Tensor:
    """A 3×3 kernel [D, C, 3, 3] → the kernel [D, C, 4, 4] of the transposed convolution with stride 2 and padding 1."""
    flipped = weight.flip(2, 3)
    rows = F.pad(flipped, [0, 0, 0, 1]) + F.pad(flipped, [0, 0, 1, 0])
    return F.pad(rows, [0, 1]) + F.pad(rows, [1, 0])


def _plain(x: Tensor, weight: Tensor, height: int, width: int) -> Tensor:
    return F.conv2d(F.interpolate(x, size=[height, width], mode="nearest"), weight, padding=1)
