"""How fast a detector answers: seconds of forward passes, the whole and its two large parts."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import nn

from util.nested_tensor import NestedTensor

WARM_UP = 5  # passes that do not count: memory is set aside, kernels are chosen, clocks go up
LEAST, MOST = 5, 100  # passes that do
BUDGET = 15.0  # seconds after which `LEAST` passes are enough
PARTS = ("backbone", "transformer")


@dataclass(frozen=True)
class Speed:
    """Seconds of each pass of a batch.

    Attributes:
        whole: passes of the whole model.
        parts: name → the same of `PARTS`, in passes of their own, since a GPU must be waited for between them.
        batch_size: images in a pass.
    """

    whole: list[float]
    parts: dict[str, list[float]]
    batch_size: int

    def throughput(self) -> float:
        """Images a second, over all passes of the whole model."""
        return self.batch_size * len(self.whole) / sum(self.whole)

    def __str__(self) -> str:
        rows = [f"{'':<11}  {'median':>10}  {'p90':>10}"]
        for name, seconds in {"whole": self.whole, **self.parts}.items():
            median, high = 1000 * np.percentile(seconds, [50, 90])
            rows.append(f"{name:<11}  {median:7.2f} ms  {high:7.2f} ms")
        return "\n".join([*rows, f"{'throughput':<11}  {self.throughput():.4g} images/s"])


@torch.inference_mode()
def measure(
    model: nn.Module,
    size: tuple[int, int],
    device: torch.device,
    *,
    batch_size: int = 1,
    budget: float = BUDGET,
    clock: Callable[[], float] = perf_counter,
    wait: Callable[[], None] | None = None,
) -> Speed:
    """Time forward passes of a detector on images of random colours, of one size and without padding.

    Args:
        model: in evaluation mode on `device`, with the children `backbone` and `transformer`, or with masks.
        size: (H, W) that the model sees, pixels.
        device: where it computes.
        batch_size: images in a pass.
        budget: seconds that the whole, and again the parts, may take once `LEAST` passes are done.
        clock: seconds.
        wait: returns when the device is done with all it was given; by default the device's own.

    Raises:
        ValueError: a size or a batch that is empty, or more than the model takes.
    """
    if min(*size, batch_size) < 1:
        raise ValueError(f"{batch_size} images of {size[0]} x {size[1]} pixels cannot be timed: use 1 or more of each")
    wait = wait or (lambda: synchronize(device))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, *size, generator=generator).to(device)
    batch = NestedTensor(images, torch.zeros(batch_size, *size, dtype=torch.bool, device=device))

    def passes(count: int, least: int) -> list[float]:
        seconds: list[float] = []
        while len(seconds) < least or (len(seconds) < count and sum(seconds) < budget):
            begun = clock()  # nothing is under way: the last pass was waited for
            model(batch)
            wait()
            seconds.append(clock() - begun)
        return seconds

    passes(WARM_UP, WARM_UP)
    whole = passes(MOST, LEAST)
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    detector = getattr(model, "detr", model)
    with ExitStack() as stack:
        for name, seconds in parts.items():
            stack.enter_context(_timed(getattr(detector, name), seconds, clock, wait))
        passes(MOST, LEAST)
    return Speed(whole, parts, batch_size)


def _timed(part: nn.Module, seconds: list[float], clock: Callable[[], float], wait: Callable[[], None]) -> ExitStack:
    """Adds to `seconds` what each pass of `part` takes, until it is left."""
    begun = 0.0

    def begin(module: nn.Module, inputs: tuple) -> None:
        nonlocal begun
        wait()
        begun = clock()

    def end(module: nn.Module, inputs: tuple, output: object) -> None:
        wait()
        seconds.append(clock() - begun)

    stack = ExitStack()
    stack.callback(part.register_forward_pre_hook(begin).remove)
    stack.callback(part.register_forward_hook(end).remove)
    return stack


def synchronize(device: torch.device) -> None:
    """Wait until the device is done with all it was given; the CPU always is."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def report(model: nn.Module, speed: Speed, size: Sequence[int], device: torch.device) -> str:
    """What was measured on what, as a small table."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return "\n".join(
        [
            f"{parameters:,} parameters on {device} ({name}), threads {torch.get_num_threads()}, "
            f"torch {torch.__version__}",
            f"{speed.batch_size} x {size[0]} x {size[1]} pixels (images, height, width), "
            f"{len(speed.whole)} passes after {WARM_UP} to warm up;",
            "the network alone: reading and resizing images and drawing are not in it",
            "",
            str(speed),
        ]
    )
