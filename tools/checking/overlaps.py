"""Findings about boxes of one picture that lie on each other: one object annotated twice, or as two classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from tools.checking.entries import PartData, corners
from tools.checking.findings import Finding, Level

TWINS = 0.9  # IoU from which two boxes of different classes are rarely two objects
CERTAIN = 0.95  # and from which hardly ever: a person fills a chair at 0.91
EQUAL = 0.95  # the same of one class
_BLOCK = 1024  # boxes that are compared with all others of a picture at a time


def overlap_findings(part: PartData) -> Iterator[Finding]:
    """Repeated boxes and twins of one part; crowd regions are left out."""
    pairs = list(_pairs(part))
    equal = _once(p for p in pairs if part.labels[p[0]] == part.labels[p[1]] and p[2] >= EQUAL)
    twins = _once(p for p in pairs if part.labels[p[0]] != part.labels[p[1]])
    if equal:
        yield part.finding(
            "box-repeated",
            Level.HURTS,
            "objects",
            "[repeats|repeat] another box of the same class",
            "DETR finds each object once, so the second box teaches it to find objects twice, and counts as missed in "
            "the score. Remove one of the two.",
            [
                part.object_place(k, f"{part.class_name(k)}, IoU {iou:.2f} with {_named(part, j)}", j)
                for j, k, iou in equal
            ],
            weight=1.0,
        )
    if twins:
        yield part.finding(
            "box-twins",
            Level.HURTS if twins[0][2] >= CERTAIN else Level.NOTE,
            "objects",
            "[lies|lie] on a box of another class",
            "One of the two labels is probably wrong: the model is told two different things about one place. Keep the "
            "right one. If the objects really are in each other (a person in a costume), leave them.",
            [
                part.object_place(
                    k, f"{part.class_name(k)} on {part.class_name(j)}, IoU {iou:.2f}, {_named(part, j)}", j
                )
                for j, k, iou in twins
            ],
            weight=1.0,
        )


def _pairs(part: PartData) -> Iterator[tuple[int, int, float]]:
    """(first, second, IoU) of the objects of a picture whose boxes overlap by `TWINS` or more."""
    sized = (part.boxes[:, 2:] > 0).all(axis=1) & ~part.crowd
    rows = np.flatnonzero(sized)
    rows = rows[np.argsort(part.owners[rows], kind="stable")]
    for group in np.split(rows, np.flatnonzero(np.diff(part.owners[rows])) + 1):
        if len(group) < 2:
            continue
        boxes = corners(part.boxes[group])  # [n, 4]
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        for start in range(0, len(group), _BLOCK):
            block = boxes[start : start + _BLOCK]
            low = np.maximum(block[:, None, :2], boxes[None, :, :2])  # [b, n, 2]
            high = np.minimum(block[:, None, 2:], boxes[None, :, 2:])
            shared = np.clip(high - low, 0, None).prod(axis=2)
            iou = shared / (area[start : start + _BLOCK, None] + area[None] - shared)
            for i, j in np.argwhere(iou >= TWINS).tolist():
                if start + i < j:
                    yield int(group[start + i]), int(group[j]), float(iou[i, j])


def _once(pairs: Iterable[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    """Each second box with the one that it lies on most, the worst first."""
    worst: dict[int, tuple[int, int, float]] = {}
    for pair in sorted(pairs, key=lambda pair: -pair[2]):
        worst.setdefault(pair[1], pair)
    return list(worst.values())


def _named(part: PartData, index: int) -> str:
    return f"annotation {part.annotations[index].get('id')}"
