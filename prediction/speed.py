"""The speed of a detector: times of forward passes, of the whole model and of its two main parts."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import nn

from util.compute.device import synchronize
from util.nested_tensor import NestedTensor

WARM_UP = 5  # passes that are not timed: memory is allocated, kernels are chosen, clock rates rise
MIN_PASSES, MAX_PASSES = 5, 100  # timed passes
BUDGET = 15.0  # seconds after which `MIN_PASSES` are enough
PARTS = ("backbone", "transformer")
PHOTO = (640, 480)  # (w, h) of a 4:3 photo, whose resized size is the default to measure at


@dataclass(frozen=True)
class Speed:
    """Measured times, in seconds per pass.

    Attributes:
        whole: times of the whole model.
        parts: name → times of each of `PARTS`, from separate passes, which synchronize with the device between parts.
        batch_size: images per pass.
    """

    whole: list[float]
    parts: dict[str, list[float]]
    batch_size: int

    def throughput(self) -> float:
        """Images per second, over all passes of the whole model."""
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
    """Time forward passes of a detector on random images of one size, without padding.

    Args:
        model: a `models.detr.DETR` or `DETRsegm` in evaluation mode on `device`.
        size: (H, W) of the model's input, in pixels.
        device: the model's device.
        batch_size: images per pass.
        budget: time limit in seconds, for the whole model and again for its parts, after `MIN_PASSES`.
        clock: returns the time in seconds.
        wait: waits for the device; by default `synchronize`.

    Raises:
        ValueError: a size or a batch size below 1, or an image too large for the model.
    """
    if min(*size, batch_size) < 1:
        raise ValueError(f"batch size, height and width must be at least 1, got {batch_size} x {size[0]} x {size[1]}")
    wait = wait or (lambda: synchronize(device))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, *size, generator=generator).to(device)
    batch = NestedTensor(images, torch.zeros(batch_size, *size, dtype=torch.bool, device=device))

    def passes(most: int, least: int) -> list[float]:
        seconds: list[float] = []
        while len(seconds) < least or (len(seconds) < most and sum(seconds) < budget):
            start = clock()  # the device is idle: `wait` followed the last pass
            model(batch)
            wait()
            seconds.append(clock() - start)
        return seconds

    passes(WARM_UP, WARM_UP)
    whole = passes(MAX_PASSES, MIN_PASSES)
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    detector = getattr(model, "detr", model)
    with ExitStack() as stack:
        for name, seconds in parts.items():
            stack.enter_context(_timed(getattr(detector, name), seconds, clock, wait))
        passes(MAX_PASSES, MIN_PASSES)
    return Speed(whole, parts, batch_size)


def _timed(part: nn.Module, seconds: list[float], clock: Callable[[], float], wait: Callable[[], None]) -> ExitStack:
    """Append the time of each pass of `part` to `seconds`, until the returned stack is closed."""
    start = 0.0

    def begin(module: nn.Module, inputs: tuple) -> None:
        nonlocal start
        wait()
        start = clock()

    def end(module: nn.Module, inputs: tuple, output: object) -> None:
        wait()
        seconds.append(clock() - start)

    stack = ExitStack()
    stack.callback(part.register_forward_pre_hook(begin).remove)
    stack.callback(part.register_forward_hook(end).remove)
    return stack


def report(model: nn.Module, speed: Speed, size: Sequence[int], device: torch.device) -> str:
    """The measured times with the model, the device and the versions, as a small table."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return "\n".join(
        [
            f"{parameters:,} parameters on {device} ({name}), threads {torch.get_num_threads()}, "
            f"torch {torch.__version__}",
            f"{speed.batch_size} x {size[0]} x {size[1]} pixels (images, height, width), "
            f"{len(speed.whole)} passes after {WARM_UP} to warm up;",
            "network only: reading, resizing and drawing images are not included",
            "",
            str(speed),
        ]
    )
