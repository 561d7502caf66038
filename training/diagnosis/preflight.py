"""The trial before the first epoch: whether the largest batch fits into memory, and how long training will take."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from util.compute.device import is_out_of_memory, synchronize
from util.dist import all_gather
from util.nested_tensor import NestedTensor
from util.rng import undisturbed

Batch = tuple[NestedTensor, Sequence[dict[str, Any]]]
Step = Callable[[NestedTensor, Sequence[dict[str, Any]]], None]

PROC = Path("/proc/self")  # where Linux reports and resets a process's peak memory


def preflight(
    model: nn.Module,
    step: Step,
    worst: Batch,
    typical: Sequence[Batch],
    *,
    device: torch.device,
    steps: int,
    accumulate: int = 1,
    optimizer: torch.optim.Optimizer | None = None,
    repeats: int = 2,
) -> str:
    """Run forward and backward on the largest batch and some ordinary ones, and forecast the training time.

    Afterwards, weights, gradients, buffers, modes, the optimizer and all random generators are unchanged. During the
    trial, memory is allocated for the optimizer's state: two numbers per weight, as in AdamW.

    In a process group, every process calls this with its own batches; `step` must not wait for another process.

    Args:
        model: set to training mode for the trial.
        step: forward, loss and backward of one batch, which is on the CPU.
        worst: the largest batch, timed `repeats` times after a warm-up.
        typical: at least one ordinary batch, timed once each, for the forecast.
        device: the device that `step` computes on.
        steps: planned steps of the training.
        accumulate: batches per step.
        optimizer: optimizer of the model's parameters.
        repeats: see `worst`.

    Returns:
        Some lines for the user, with the times of the slowest process and the memory of the largest.

    Raises:
        ValueError: the largest batch does not fit into memory, on any process; the message says what to lower.
    """
    own_error: Exception | None = None
    outcome: tuple[str, tuple[float, float, int] | None]
    try:
        with undisturbed(model), _optimizer_memory(optimizer):
            model.train()
            step(*worst)  # warm-up
            _reset_peak(device)
            slow = _seconds(step, [worst] * repeats, device)
            peak = _peak(device)
            usual = _seconds(step, typical, device)
        outcome = ("", (slow, usual, peak))
    except Exception as error:  # shared with all processes, so that no process waits for one that failed
        own_error = error
        out_of_memory = is_out_of_memory(error)
        outcome = (_too_large(worst, device) if out_of_memory else f"{type(error).__name__}: {error}", None)
        if out_of_memory:
            own_error = ValueError(outcome[0])
    outcomes = all_gather(outcome)
    if own_error is not None:
        raise own_error
    failed = [f"process {index}: {text}" for index, (text, numbers) in enumerate(outcomes) if numbers is None]
    if failed:
        raise ValueError(f"the trial of the largest batch failed on {'; '.join(failed)}")
    slow, usual, peak = (max(column) for column in zip(*(numbers for _, numbers in outcomes)))
    slow, usual = slow * accumulate, usual * accumulate
    return _describe(worst, len(typical), slow, usual, peak, device, steps, len(outcomes))


def _describe(
    worst: Batch, tried: int, slow: float, usual: float, peak: int, device: torch.device, steps: int, processes: int
) -> str:
    memory = f"{peak / 2**30:.2f} GiB" if peak else "not measured on this system"
    if device.type == "cuda":
        memory += f" of {torch.cuda.get_device_properties(device).total_memory / 2**30:.2f} GiB"
    each = " on each process" if processes > 1 else ""
    excluded = "reading images, the optimizer's update, evaluations, checkpoints"
    if processes > 1:
        excluded += ", communication between processes"
    return (
        f"preflight, the largest batch{each}: {_shape(worst)}: {slow:.3g} s per step, peak memory {memory}\n"
        f"preflight, {tried} ordinary batch{'es' * (tried > 1)}{each}: {usual:.3g} s per step\n"
        f"forecast: {steps:,} steps in about {_duration(steps * usual)}; {_duration(steps * slow)} if every batch were "
        f"the largest. Not included: {excluded}"
    )


def _shape(batch: Batch) -> str:
    samples, targets = batch
    count, _, height, width = samples.tensors.shape
    most = max((len(target["labels"]) for target in targets), default=0)
    objects = f"{most} object{'s' * (most != 1)}"
    return f"{count} image{'s' * (count > 1)} padded to {width}x{height} pixels, at most {objects} in one"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if seconds >= 1 else "1 second"


def _too_large(worst: Batch, device: torch.device) -> str:
    return (
        f"the largest batch of this training does not fit into the memory of {device}: {_shape(worst)}. Lower "
        "--batch_size, or --max_size and --train_sizes, or use a smaller model (--backbone, no --dilation)"
    )


def _seconds(step: Step, batches: Sequence[Batch], device: torch.device) -> float:
    """Mean seconds per step over `batches`."""
    synchronize(device)
    start = perf_counter()
    for batch in batches:
        step(*batch)
    synchronize(device)
    return (perf_counter() - start) / len(batches)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        try:
            (PROC / "clear_refs").write_text("5")
        except OSError:  # not Linux, or not permitted: the peak is then that since the start of the process
            return


def _peak(device: torch.device) -> int:
    """Peak memory in bytes on `device` since `_reset_peak`; on the CPU, of the whole process; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()  # the driver does not give memory back, so this is the peak
    if (PROC / "status").exists():
        lines = dict(line.split(":", 1) for line in (PROC / "status").read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def _optimizer_memory(optimizer: torch.optim.Optimizer | None) -> Iterator[None]:
    """Context that allocates as much memory as AdamW's two moments will need, where they do not exist yet."""
    groups = optimizer.param_groups if optimizer is not None else ()
    parameters = [parameter for group in groups for parameter in group["params"] if not optimizer.state.get(parameter)]
    moments = [torch.ones_like(parameter) for parameter in parameters for _ in range(2)]
    yield
    del moments
