"""The losses of a batch that is computed in parts, so that the parts add up to those of the batch in one piece.

Sums over boxes are divided by the whole batch's number of boxes. What is a mean over a part is turned into the part's
share of the mean over the whole batch. All divisors follow from the targets, before any prediction is known.

Shapes: `B` batch, `Q` queries, `C` classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.matcher import at_least_float32

Targets = Sequence[dict[str, Tensor]]


def shares_of_means(logits: Tensor, part: Targets, whole: Targets, class_weights: Tensor) -> dict[str, Tensor | float]:
    """For each value that is a mean, the share that a part has in what the whole batch is averaged over.

    The classification loss is averaged over class weights, the class error over matched queries, the cardinality error
    over images. In images with more objects than queries, the objects' mean weight stands for that of the matches.

    Args:
        logits: of the part [B, Q, C+1].
        part, whole: targets, on any device; `whole` includes the part.
        class_weights: [C+1].
    """
    queries = logits.shape[1]
    weights = [_total_weight(targets, logits, class_weights) for targets in (part, whole)]
    pairs = [sum(min(len(target["labels"]), queries) for target in targets) for targets in (part, whole)]
    images = len(part) / len(whole)
    return {
        "loss_ce": weights[0] / weights[1],
        "class_error": pairs[0] / pairs[1] if pairs[1] else images,
        "cardinality_error": images,
    }


def with_masks_of_whole(part: Targets, whole: Targets, padded_size: Sequence[int] | None) -> Targets:
    """The part's targets, with masks that together cover the largest height and width of the whole batch.

    Mask losses are means over these. Predictions do not reach beyond `padded_size`, so the masks do not either.
    """
    size = [max(target["masks"].shape[axis] for target in whole) for axis in (-2, -1)]  # H, W
    if padded_size is not None:
        size = [min(pair) for pair in zip(size, padded_size)]
    masks = part[0]["masks"]
    more = [max(0, full - own) for full, own in zip(size, masks.shape[-2:])]
    return [{**part[0], "masks": F.pad(masks, (0, more[1], 0, more[0]))}, *part[1:]]


def _total_weight(targets: Targets, logits: Tensor, class_weights: Tensor) -> Tensor:
    """The sum of class weights over all queries of `targets`, 0-dim, on the logits' device without waiting for it."""
    queries, device = logits.shape[1], logits.device
    counts = [len(target["labels"]) for target in targets]
    matched = [min(count, queries) for count in counts]
    weights = class_weights.to(at_least_float32(logits).dtype)
    labels = torch.cat([target["labels"] for target in targets]).to(device, non_blocking=True)
    per_object = [matches / count for matches, count in zip(matched, counts) for _ in range(count)]
    fractions = torch.tensor(per_object, dtype=weights.dtype).to(device, non_blocking=True)
    return (weights[labels] * fractions).sum() + weights[-1] * (queries * len(targets) - sum(matched))
