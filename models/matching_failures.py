"""What the criterion does when its predictions cannot be matched while other processes wait for it.

An error on one process would leave the others waiting in their next collective. The criterion has one collective, which
averages the number of boxes over the processes. The failing process takes part in it with NaN instead of its number,
and returns NaN for every loss. The other processes divide their box and mask losses by that average, so these become
NaN as well, and so does the average of any loss over the processes: a training loop that checks the average stops on
all processes at the same step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from util.dist import mean_over_processes

if TYPE_CHECKING:
    from models.criterion import SetCriterion


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
