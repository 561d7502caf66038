"""Dropout whose mask is drawn in a fraction of the time on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16  # the values of one draw


class Dropout(nn.Dropout):
    """`nn.Dropout`, by `dropout` below."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape."""
        return dropout(input, self.p, self.training)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """`torch.nn.functional.dropout`: zero a share `p` of the elements and scale the others, so that the mean stays.

    PyTorch draws a random number for each element, on one thread. Here, on a CPU, a draw of 64 bits serves four
    elements.
    """
    if not torch.jit.is_scripting():
        if training and 0 < p < 1 and x.device.type == "cpu" and not torch.compiler.is_compiling():
            return _drop_by_bits(x, p)
    return F.dropout(x, p, training)


def _drop_by_bits(x: Tensor, p: float) -> Tensor:
    """Each element is dropped if its 16 bits are below a level: p in steps of 1/65536, and the scale that fits it."""
    dropped = min(max(round(p * LEVELS), 1), LEVELS - 1)
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    keep = draws.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - LEVELS // 2
    return (x * keep).mul_(LEVELS / (LEVELS - dropped))
