"""COCO's matching of detections to objects at one overlap threshold, for all images at once.

https://cocodataset.org/#detection-eval. Legend: n detections, m objects; boxes are x, y, width, height in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

UNMATCHED, IGNORED = -1, -2
PAIRS_AT_ONCE = 1_000_000  # pairs of boxes whose overlaps are computed together: bounds the memory


def match(
    groups: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    object_groups: np.ndarray,
    object_boxes: np.ndarray,
    crowd: np.ndarray,
    *,
    iou: float = 0.5,
    most: int | None = None,
) -> np.ndarray:
    """COCO's greedy matching within each group, the best score first.

    A detection takes the object left over in its group that it overlaps most, by at least `iou`. If there is none, a
    crowd region that it lies in by that share of its own area makes it ignored; a region serves any number of them.
    Equal scores go by the order given, equal overlaps to the later object.

    Args:
        groups: integers [n]; detections and objects of one group may match, such as those of an image and class.
        boxes, scores: [n, 4], [n].
        object_groups, object_boxes, crowd: [m], [m, 4], bool [m].
        most: detections a group that count, the best ones; the others are ignored.

    Returns:
        int64 [n]: the index of the object taken, UNMATCHED or IGNORED.
    """
    order = np.lexsort((-scores, groups))
    by_group = np.argsort(object_groups, kind="stable")
    taken_by = np.full(len(groups), UNMATCHED)
    if most is not None:
        counts = _place_in_run(groups[order]) < most
        taken_by[order[~counts]] = IGNORED
        order = order[counts]
    found = [
        (order[d], by_group[g], overlap)
        for d, g, overlap in _overlapping(
            groups[order], boxes[order], object_groups[by_group], object_boxes[by_group], crowd[by_group], iou
        )
    ]
    if not found:
        return taken_by
    detection, target, overlap = (np.concatenate(part) for part in zip(*found))  # one entry a pair

    # Round r decides on the r-th detection of every group, so that no two of a round want the same object. Within a
    # detection, pairs come from the least to the most wanted.
    first = np.flatnonzero(np.diff(detection, prepend=-1))  # the pairs of a detection follow each other
    rounds = np.repeat(_place_in_run(groups[detection[first]]), np.diff(first, append=len(detection)))
    by_wish = np.lexsort((target, overlap, ~crowd[target], detection, rounds))
    detection, target, rounds = detection[by_wish], target[by_wish], rounds[by_wish]
    free = np.ones(len(object_groups), dtype=bool)
    starts = np.flatnonzero(np.diff(rounds, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(rounds))):
        left = start + np.flatnonzero(free[target[start:end]])
        wishes = left[np.diff(detection[left], append=-1) != 0]  # the last pair of each detection
        chosen = target[wishes]
        taken_by[detection[wishes]] = np.where(crowd[chosen], IGNORED, chosen)
        free[chosen[~crowd[chosen]]] = False
    return taken_by


def _place_in_run(values: np.ndarray) -> np.ndarray:
    """How many equal values stand directly before each one: [5, 5, 7] → [0, 1, 0]."""
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])) if len(values) else np.zeros(0, int)
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))


def _overlapping(
    groups: np.ndarray,
    boxes: np.ndarray,
    object_groups: np.ndarray,
    object_boxes: np.ndarray,
    crowd: np.ndarray,
    iou: float,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of one group that overlap enough, by portions: detection index, object index, overlap. Both are sorted."""
    start = np.searchsorted(object_groups, groups)
    partners = np.searchsorted(object_groups, groups, side="right") - start  # [n]
    portions = np.cumsum(partners) // PAIRS_AT_ONCE
    for portion in np.split(np.arange(len(groups)), np.flatnonzero(np.diff(portions)) + 1):
        d = np.repeat(portion, partners[portion])
        offsets = np.cumsum(partners[portion]) - partners[portion]
        g = np.arange(len(d)) + np.repeat(start[portion] - offsets, partners[portion])
        overlap = _iou(boxes[d], object_boxes[g], crowd[g])
        enough = overlap >= min(iou, 1 - 1e-10)
        if enough.any():
            yield d[enough], g[enough], overlap[enough]


def _iou(boxes: np.ndarray, object_boxes: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Overlaps of pairs as pycocotools computes them, to the bit; with a crowd region the share of the box in it."""
    (x, y, w, h), (u, v, p, q) = boxes.T, object_boxes.T
    wide = np.minimum(x + w, u + p) - np.maximum(x, u)
    high = np.minimum(y + h, v + q) - np.maximum(y, v)
    area, inside = w * h, np.where((wide > 0) & (high > 0), wide * high, 0)
    union = np.where(crowd, area, area + p * q - inside)
    return np.divide(inside, union, out=np.zeros(len(x)), where=inside > 0)
