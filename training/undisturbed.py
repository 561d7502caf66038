"""Running a model on the side without affecting the training in progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from util.rng import preserve_rng_state


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Restore gradients, buffers and modes of `model` and all generators on exit; weights are not saved.

    Inside, the parameters have no gradients. Errors pass through.
    """
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    with preserve_rng_state({parameter.device for parameter, _ in gradients if parameter.is_cuda}):
        try:
            for parameter, _ in gradients:
                parameter.grad = None
            yield
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
            for module, mode in modes:
                module.training = mode
