"""The moving average of the weights of a run (`--ema`), which usually detects better than the weights themselves."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from util.checkpoint import load_weights
from util.dist import broadcast_tensors
from util.loading.checkpoint_entries import model_of
from util.logging import get_logger


class WeightAverage:
    """An exponential moving average of a model's weights, whose horizon grows with the run.

    Step t moves each average by 1 − d towards the weight, with d = min(decay, (1 + t) / (10 + t)). An average with a
    fixed decay d spans about 1 / (1 − d) steps: 10,000 at 0.9999, more than a small run has, so that the average would
    consist of the first weights. With this rule it spans at most a ninth of the steps taken, whatever the length of
    the run: weights that grow evenly are followed a tenth of the steps behind, and the first half of the steps has a
    weight of 2^-9. The `decay` is reached after about 9 / (1 − decay) steps. The rule does not know when the run ends,
    so that a run which is stopped, resumed or extended has the same averages.

    Buffers, such as the statistics of batch norm, are copied. The average needs as much memory as the weights.

    Args:
        model: the model itself, not its wrapper for several processes. These have equal weights, so equal averages.
        decay: d's upper limit, in [0, 1).

    Attributes:
        model: a copy of the model with the averages as its weights, in evaluation mode.
        steps: t, the number of updates.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        # What trains stays marked, so that norms are folded as in the model: `--eval` repeats the training's numbers.
        self.model = copy.deepcopy(model).eval()
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        self._averages, self._weights = map(list, zip(*(pair for pair in pairs if pair[1].requires_grad)))
        self._buffers = list(self.model.buffers()), list(model.buffers())

    @property
    def current_decay(self) -> float:
        """d of the last update."""
        return min(self.decay, (1 + self.steps) / (10 + self.steps))

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the current weights, after an optimizer step; no wait for the device."""
        self.steps += 1
        torch._foreach_lerp_(self._averages, self._weights, 1 - self.current_decay)
        for own, current in zip(*self._buffers, strict=True):
            own.copy_(current)

    def share_buffers(self) -> None:
        """Give all processes the buffers of the main one, as DistributedDataParallel does before each forward."""
        broadcast_tensors(self._buffers[0])

    def state_dict(self) -> dict[str, Any]:
        """Entries of a checkpoint."""
        return {"model_ema": self.model.state_dict(), "ema_steps": self.steps}

    def load_state_dict(self, checkpoint: Mapping[str, Any], source: str) -> None:
        """Continue the average in a checkpoint; without one, begin with the weights that the model has.

        Raises:
            CheckpointError: the average does not fit the model; names `source`.
        """
        if not checkpoint.get("model_ema"):
            get_logger().info(f"{source} has no moving average of the weights: it begins with the weights")
            return
        load_weights(self.model, model_of(checkpoint, source), source)
        self.steps = checkpoint.get("ema_steps") or 0
