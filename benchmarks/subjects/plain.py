"""Our network in its plain form: what each layer computes, operation by operation, in PyTorch's default memory format.

The same modules with the same weights give the same outputs up to rounding. Frozen norms are a product and a sum, and
attention is explicit. This is close to what the published code computes, but it is not that code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.attention import MultiheadAttention


class SeparateNorm(nn.Module):
    """A frozen batch norm as a product and a sum: [B, C, h, w] → the same shape."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", (norm.bias - norm.running_mean * scale).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def to_plain(model: nn.Module) -> nn.Module:
    """Change a detector to its plain form."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if hasattr(child, "running_var") and not isinstance(child, nn.BatchNorm2d):
                setattr(module, name, SeparateNorm(child))
        if isinstance(module, MultiheadAttention):
            module.fused = False
        if hasattr(module, "folded"):  # the backbone's fast form
            module.folded = False
    return model.to(memory_format=torch.contiguous_format)
