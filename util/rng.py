"""The global random number generators: seeding, saving and restoring them, also around a trial run of a model."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def get_rng_state() -> dict[str, Any]:
    """The state of this process's global generators: Python, NumPy, torch, and the current cuda device if in use."""
    state = _cpu_rng_state()
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore what `get_rng_state` returned, directly or after a round trip through a checkpoint."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def preserve_rng_state(cuda_devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """On exit, restore the global generators of Python, NumPy and torch, also after an error.

    Of the accelerators, only the generators of `cuda_devices` are read and restored.
    """
    state = _cpu_rng_state()
    cuda = {device: torch.cuda.get_rng_state(device) for device in cuda_devices}
    try:
        yield
    finally:
        set_rng_state(state)
        for device, cuda_state in cuda.items():
            torch.cuda.set_rng_state(cuda_state, device)


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


def _cpu_rng_state() -> dict[str, Any]:
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
