"""Activations that are computed again in the backward pass instead of kept (Chen et al. 2016): memory against time.

Losses and gradients are those of the plain form: the same kernels run on the same inputs, with the random numbers of
the forward pass, so that dropout drops the same values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_activations(model: nn.Module, wanted: bool = True) -> None:
    """Let the parts of `model` that can do so keep only their inputs in training: modules with a `recompute` attribute.

    These are both stacks of the transformer, layer by layer.
    """
    for module in model.modules():
        if hasattr(module, "recompute"):
            module.recompute = wanted


def recomputed(function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(*inputs)`; of what it computes on the way nothing is kept for the backward pass."""
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False)
