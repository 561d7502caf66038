"""The device to compute on: choosing it, waiting for it, and its memory: that it has run out, and giving it back."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

import torch

# The wording of the operating system and of the allocators that raise a plain RuntimeError (CPU, mps).
_OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "allocate memory",
    "allocate shared memory",
    "bad_alloc",
    "STATUS_ALLOC_FAILED",  # of cuBLAS and cuDNN
)


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Turn `--device` into a device that is present.

    `auto` prefers cuda, then mps, then cpu. If a launcher (torchrun, Slurm) started this process, a bare `cuda` becomes
    the process's index on its machine, so that every process gets its own GPU.

    Raises:
        ValueError: the name is not a device, or that device is not present.
    """
    name = str(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name} is not a device: use auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda":
        return _resolve_cuda(device)
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError(f"--device {name}: no mps device is available here: use --device auto or cpu")
        return device
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name} cannot be used here: use --device auto, cpu, cuda or mps") from error
    return device


def _resolve_cuda(device: torch.device) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise ValueError(f"--device {device}: no cuda device is available here: use --device auto or cpu")
    index = device.index
    if index is None:
        index = _local_rank(count)
    if index >= count:
        raise ValueError(
            f"cuda device {index} was requested, but this machine has {count} (0..{count - 1}): "
            "choose one of them, or start at most as many processes per machine as it has devices"
        )
    return torch.device("cuda", index)


def _local_rank(device_count: int) -> int:
    """The index of this process on its machine, which decides its device."""
    if "LOCAL_RANK" in os.environ:
        return launcher_number("LOCAL_RANK")
    if "SLURM_PROCID" in os.environ:
        # Slurm may show each task its own device only, so the index wraps around what is visible.
        return launcher_number("SLURM_LOCALID" if "SLURM_LOCALID" in os.environ else "SLURM_PROCID") % device_count
    return 0


def launcher_number(name: str, *, at_least: int = 0, environment: Mapping[str, str] = os.environ) -> int:
    """The integer in an environment variable that a launcher sets.

    Raises:
        ValueError: it is not an integer, or below `at_least`.
    """
    text = environment[name]
    try:
        number = int(text)
    except ValueError:
        number = at_least - 1
    if number < at_least:
        raise ValueError(
            f"the environment variable {name} must be an integer of at least {at_least}, got {text!r}: "
            "start with torchrun, which sets it"
        )
    return number


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all work queued on it; a no-op on the CPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def is_out_of_memory(error: BaseException) -> bool:
    """True if `error` reports that memory ran out, on any device.

    Only accelerators, and Python itself, have an exception type for it; otherwise it is recognised by its message.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def return_freed_memory() -> None:
    """Make glibc return freed memory to the system; without glibc do nothing."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    malloc_trim = getattr(library, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
