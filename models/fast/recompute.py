"""Activations that are computed again in the backward pass instead of kept (Chen et al. 2016): memory against time.

Losses and gradients are those of the plain form: the same kernels run on the same inputs, with the random numbers of
the forward pass, so that dropout drops the same values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute_activations(model: nn.Module, wanted: bool = True) -> None:
    """Let the parts of `model` that can do so keep only their inputs in training: modules with a `recompute` attribute.

    These are the backbone's stages, some blocks at a time, and both stacks of the transformer, layer by layer.
    """
    for module in model.modules():
        if hasattr(module, "recompute"):
            module.recompute = wanted


def recomputed(function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(*inputs)`; of what it computes on the way nothing is kept for the backward pass."""
    if not torch.is_grad_enabled():
        return function(*inputs)
    parts = function.modules() if isinstance(function, nn.Module) else ()
    norms = [part for part in parts if isinstance(part, nn.BatchNorm2d) and part.training]
    options = {"context_fn": lambda: (nullcontext(), _kept_statistics(norms))} if norms else {}
    return checkpoint(function, *inputs, use_reentrant=False, **options)


def recomputed_stage(stage: nn.Module, x: Tensor) -> Tensor:
    """`stage(x)`; of a sequence of n blocks only about √n feature maps are kept.

    A block's input is larger than all else that it keeps, so that recomputing single blocks would save little. Of a
    stage that is no sequence everything is kept.
    """
    if not isinstance(stage, nn.Sequential):
        return stage(x)
    length = math.ceil(math.sqrt(len(stage)))
    for first in range(0, len(stage), length):
        x = recomputed(stage[first : first + length], x)
    return x


@contextmanager
def _kept_statistics(norms: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Batch norms normalise by their batch, but do not count it a second time."""
    own = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, own, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counted
