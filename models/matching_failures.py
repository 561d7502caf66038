"""What the criterion does when its predictions cannot be matched while other processes wait for it.

An error on one process would leave the others waiting in their next collective. The criterion has one collective, which
averages the number of boxes over the processes. The failing process takes part in it with NaN instead of its number,
and returns NaN for every loss. The other processes divide their box and mask losses by that average, so these become
NaN as well, and so does the average of any loss over the processes: a training loop that checks the average stops on
all processes at the same step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.matcher import MatchingFailure
from util.dist import is_dist_avail_and_initialized, mean_over_processes

if TYPE_CHECKING:
    from models.criterion import SetCriterion


def nan_if_others_wait(forward: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """Lets `SetCriterion.forward` return NaN instead of raising `MatchingFailure` while other processes wait for it."""

    @wraps(forward)
    def shared(
        criterion: SetCriterion,
        outputs: dict[str, Any],
        targets: Sequence[dict[str, Tensor]],
        *,
        num_boxes: Tensor | float | None = None,
        padded_size: tuple[int, int] | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        try:
            return forward(criterion, outputs, targets, num_boxes=num_boxes, padded_size=padded_size, **options)
        except MatchingFailure:
            if num_boxes is None and is_dist_avail_and_initialized():
                layers = [outputs, *outputs.get("aux_outputs", [])]
                return share_matching_failure(criterion, layers, targets, padded_size)
            raise

    return shared


def share_matching_failure(
    criterion: SetCriterion,
    layers: Sequence[dict[str, Tensor]],
    targets: Sequence[dict[str, Tensor]],
    padded_size: tuple[int, int] | None,
) -> dict[str, Tensor]:
    """Announce a failed matching to all processes of the group; each of them must be inside the criterion.

    Args:
        layers, targets, padded_size: as in `SetCriterion.compute_losses`.

    Returns:
        The losses that a matching would have given, by name, all of them NaN. They still depend on the outputs, so that
        `backward` reaches every parameter and DistributedDataParallel does not wait for one.
    """
    num_boxes = mean_over_processes(math.nan, layers[0]["pred_logits"].device)
    nothing = torch.zeros(0, dtype=torch.int64)
    no_matches = [[(nothing, nothing)] * len(targets)] * len(layers)
    losses = criterion.compute_losses(layers, targets, no_matches, num_boxes, padded_size)
    return {name: value * math.nan for name, value in losses.items()}
