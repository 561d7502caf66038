"""What surrounds the loops of a run: signals that ask for a stop or a save, curves, diagnosis of non-finite numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import torch
from torch import nn

from engine import Monitor
from training.diagnosis.forensics import first_non_finite, report_non_finite
from training.tensorboard import TensorBoardWriter
from util.compute.accumulation import Parts
from util.meters import MetricLogger
from util.signals import StopSignals

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
