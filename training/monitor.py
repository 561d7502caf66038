"""What surrounds the loops of a run: signals that ask for a stop or a save, curves, diagnosis, pace."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import torch
from torch import nn

from engine import Monitor
from training.diagnosis.forensics import first_non_finite, report_non_finite
from training.tensorboard import TensorBoardWriter
from util.compute.accumulation import Parts
from util.logging import get_logger
from util.meters import MetricLogger
from util.signals import StopSignals

PACE_EVERY = 30.0  # seconds between lines on how far the run is, at least
Save = Callable[[bool, int | None, MetricLogger | None], None]


class RunMonitor(Monitor):
    """The monitor of a training and its evaluations.

    Args:
        signals: their requests reach all processes.
        curves: the writer of the values of single steps.
        save: called as `save(stop, step, meters)` when a save or a stop was requested; `step` and `meters` are those of
            `Monitor.respond`. It raises to stop.
        steps_before: gives the optimizer steps taken before the epoch.
        every: steps between points of the curves.
        output_dir: folder to save a batch that gives non-finite numbers to; empty to save nothing.
    """

    def __init__(
        self,
        signals: StopSignals,
        curves: TensorBoardWriter,
        save: Save,
        steps_before: Callable[[], int],
        *,
        every: int = 10,
        output_dir: str | os.PathLike[str] = "",
    ):
        self.signals, self.curves, self.save, self.steps_before = signals, curves, save, steps_before
        self.every, self.output_dir = every, output_dir

    def requests(self) -> dict[str, float]:
        return {"stop": float(self.signals.stop), "save": float(self.signals.save)}

    def observe(
        self, step: int, values: Mapping[str, float], optimizer: torch.optim.Optimizer, meters: MetricLogger
    ) -> None:
        if step % self.every == 0:
            rates = {f"lr_{index}": group["lr"] for index, group in enumerate(optimizer.param_groups)}
            self.curves.scalars({**values, **rates, **meters.watched()}, self.steps_before() + step + 1)

    def respond(self, requested: set[str], step: int | None = None, meters: MetricLogger | None = None) -> None:
        if requested:
            self.signals.save = False
            self.save("stop" in requested, step, meters)

    def explain(self, what: str, model: nn.Module, parts: Parts, criterion: nn.Module, epoch: int, step: int) -> str:
        samples, targets = parts[0] if len(parts) == 1 else first_non_finite(model, parts, criterion)
        return report_non_finite(
            what, model, samples, targets, criterion, epoch=epoch, step=step, output_dir=self.output_dir
        )


class Pace:
    """Logs how far a run is and how long it will take; with short epochs not after each of them.

    Args:
        first: its first epoch.
        total: its epochs from there; the last one may be a part of one.
    """

    def __init__(self, first: int, total: float) -> None:
        self.first, self.total = first, total
        self._start = self._logged = time.monotonic()

    def time(self) -> timedelta:
        """Since the start, in whole seconds."""
        return timedelta(seconds=int(time.monotonic() - self._start))

    def log(self, epochs: int, *, evaluated: bool) -> None:
        """After an epoch, so that `epochs` of the run are done; `evaluated`: the epoch has left a report as well."""
        now = time.monotonic()
        if not evaluated and now - self._logged < PACE_EVERY:
            return
        self._logged = now
        done = epochs - self.first
        left = timedelta(seconds=int((now - self._start) / done * max(self.total - done, 0)))
        of = f"{math.ceil(self.total)} epoch{'s' * (self.total > 1)}"
        get_logger().info(f"{done} of {of} in {self.time()}, about {left} to go")
