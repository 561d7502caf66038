"""COCO's matching of detections to objects at one overlap threshold, for all images at once.

https://cocodataset.org/#detection-eval. Legend: n detections, m objects; boxes are x, y, width, height in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

UNMATCHED, IGNORED = -1, -2
MAX_PAIRS = 1_000_000  # pairs of boxes whose overlaps are computed together: bounds the memory


def match(
    groups: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    object_groups: np.ndarray,
    object_boxes: np.ndarray,
    crowd: np.ndarray,
    *,
    iou: float = 0.5,
    max_detections: int | None = None,
) -> np.ndarray:
    """COCO's greedy matching within each group, by descending score.

    A detection is matched to the unmatched object of its group with the largest IoU of at least `iou`. If there is
    none and a share of at least `iou` of the detection's area is in a crowd region, the detection is ignored; any
    number of detections may be in one region. Equal scores keep the given order; of equal overlaps the later object
    is taken.

    Args:
        groups: integers [n]; only detections and objects of the same group match, such as those of an image and class.
        boxes, scores: [n, 4], [n].
        object_groups, object_boxes, crowd: [m], [m, 4], bool [m].
        max_detections: how many detections of a group count, those with the highest scores; the others are ignored.

    Returns:
        int64 [n]: the index of the matched object, UNMATCHED or IGNORED.
    """
    order = np.lexsort((-scores, groups))
    by_group = np.argsort(object_groups, kind="stable")
    matches = np.full(len(groups), UNMATCHED)
    if max_detections is not None:
        counts = _rank_in_run(groups[order]) < max_detections
        matches[order[~counts]] = IGNORED
        order = order[counts]
    pairs = [
        (order[d], by_group[g], overlap)
        for d, g, overlap in overlapping_pairs(
            groups[order], boxes[order], object_groups[by_group], object_boxes[by_group], crowd[by_group], iou
        )
    ]
    if not pairs:
        return matches
    detection, target, overlap = (np.concatenate(part) for part in zip(*pairs))  # one entry per pair

    # Round r matches the r-th detection of every group, so that no two detections of a round compete for an object.
    # The pairs of a detection are sorted so that the preferred one comes last.
    first = np.flatnonzero(np.diff(detection, prepend=-1))  # pairs of one detection are consecutive
    rounds = np.repeat(_rank_in_run(groups[detection[first]]), np.diff(first, append=len(detection)))
    by_preference = np.lexsort((target, overlap, ~crowd[target], detection, rounds))
    detection, target, rounds = detection[by_preference], target[by_preference], rounds[by_preference]
    free = np.ones(len(object_groups), dtype=bool)
    starts = np.flatnonzero(np.diff(rounds, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(rounds))):
        candidates = start + np.flatnonzero(free[target[start:end]])
        preferred = candidates[np.diff(detection[candidates], append=-1) != 0]  # the last pair of each detection
        chosen = target[preferred]
        matches[detection[preferred]] = np.where(crowd[chosen], IGNORED, chosen)
        free[chosen[~crowd[chosen]]] = False
    return matches


def _rank_in_run(values: np.ndarray) -> np.ndarray:
    """How many equal values come directly before each value: [5, 5, 7] → [0, 1, 0]."""
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])) if len(values) else np.zeros(0, int)
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))


def overlapping_pairs(
    groups: np.ndarray,
    boxes: np.ndarray,
    object_groups: np.ndarray,
    object_boxes: np.ndarray,
    crowd: np.ndarray,
    iou: float,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of one group with enough overlap, in chunks: detection index, object index, overlap. Groups are sorted."""
    start = np.searchsorted(object_groups, groups)
    partners = np.searchsorted(object_groups, groups, side="right") - start  # [n]
    chunks = np.cumsum(partners) // MAX_PAIRS
    for chunk in np.split(np.arange(len(groups)), np.flatnonzero(np.diff(chunks)) + 1):
        d = np.repeat(chunk, partners[chunk])
        offsets = np.cumsum(partners[chunk]) - partners[chunk]
        g = np.arange(len(d)) + np.repeat(start[chunk] - offsets, partners[chunk])
        overlap = _iou(boxes[d], object_boxes[g], crowd[g])
        enough = overlap >= min(iou, 1 - 1e-10)
        if enough.any():
            yield d[enough], g[enough], overlap[enough]


def _iou(boxes: np.ndarray, object_boxes: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU of pairs exactly as pycocotools computes it; for a crowd region, the share of the box that is in it."""
    (x, y, w, h), (u, v, p, q) = boxes.T, object_boxes.T
    wide = np.minimum(x + w, u + p) - np.maximum(x, u)
    high = np.minimum(y + h, v + q) - np.maximum(y, v)
    area, inside = w * h, np.where((wide > 0) & (high > 0), wide * high, 0)
    union = np.where(crowd, area, area + p * q - inside)
    return np.divide(inside, union, out=np.zeros(len(x)), where=inside > 0)
