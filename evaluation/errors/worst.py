"""The pictures with the worst errors, and everything about them that is needed to draw them.

Errors that a person would see: those of detections with at least the threshold's score. A picture is listed once, for
the group of errors that it is chosen for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.errors.kinds import (
    BACKGROUND,
    BOTH,
    CLASSIFICATION,
    CORRECT,
    DUPLICATE,
    KINDS,
    LEFT_OUT,
    LOCALISATION,
    Errors,
    found_objects,
    missed_objects,
)
from evaluation.findings import MatchSummary

PICTURES = 20
MAX_BOXES = 300  # objects and detections of a picture that are listed, each
# What a reader calls them → kinds of detections.
GROUPS: dict[str, tuple[int, ...]] = {
    "missed": (),
    "invented": (BACKGROUND, DUPLICATE),
    "mislabelled": (CLASSIFICATION, BOTH),
    "misplaced": (LOCALISATION,),
}


def worst_pictures(summary: MatchSummary, errors: Errors, count: int = PICTURES) -> list[tuple[int, str, float]]:
    """(image id, group, weight) of the pictures to show, by group and falling weight.

    The weight of a picture in a group is the sum of its errors' scores; a missed object weighs 1. The groups choose in
    turn, each its heaviest picture that is not chosen yet.
    """
    rows, at = summary.detections.rows, summary.detections.rows[:, 5] >= summary.threshold
    queues = {}
    for group, kinds in GROUPS.items():
        if kinds:
            chosen = at & np.isin(errors.kinds, kinds)
            images, weights = rows[chosen, 0].astype(np.int64), rows[chosen, 5]
        else:
            images = summary.objects.images[missed_objects(errors, summary, at)]
            weights = np.ones(len(images))
        ids, place = np.unique(images, return_inverse=True)
        totals = np.bincount(place, weights=weights, minlength=len(ids))
        order = np.argsort(-totals, kind="stable")
        queues[group] = iter(zip(ids[order].tolist(), totals[order].tolist()))
    taken: dict[int, tuple[str, float]] = {}
    while queues and len(taken) < count:
        for group in list(queues):
            image_id, weight = next((one for one in queues[group] if one[0] not in taken), (None, 0.0))
            if image_id is None:
                del queues[group]
            elif len(taken) < count:
                taken[image_id] = (group, weight)
    places = list(GROUPS)
    found = [(image_id, group, weight) for image_id, (group, weight) in taken.items()]
    return sorted(found, key=lambda one: (places.index(one[1]), -one[2]))


def describe_picture(summary: MatchSummary, errors: Errors, image_id: int) -> dict[str, Any]:
    """The objects and the detections above the threshold of one picture, in plain data.

    Returns:
        `objects`: dicts of class (index in `summary.ids`), box (x, y, width, height), found, missed, crowd;
        `detections`, the best score first: class, box, score, kind ("correct" or one of `KINDS`), iou (with the object
        it is about), object (its place in `objects`, or None).
    """
    rows, objects = summary.detections.rows, summary.objects
    at = rows[:, 5] >= summary.threshold
    here = np.flatnonzero((rows[:, 0] == image_id) & at & (errors.kinds != LEFT_OUT))
    here = here[np.argsort(-rows[here, 5], kind="stable")][:MAX_BOXES]
    own = np.flatnonzero(objects.images == image_id)[:MAX_BOXES]
    found, missed = found_objects(errors, len(objects.crowd), at), missed_objects(errors, summary, at)
    place = {int(index): k for k, index in enumerate(own)}
    return {
        "objects": [
            {
                "class": int(objects.classes[g]),
                "box": objects.boxes[g].tolist(),
                "found": bool(found[g]),
                "missed": bool(missed[g]),
                "crowd": bool(objects.crowd[g]),
            }
            for g in own
        ],
        "detections": [
            {
                "class": int(summary.labels[d]),
                "box": rows[d, 1:5].tolist(),
                "score": float(rows[d, 5]),
                "kind": "correct" if errors.kinds[d] == CORRECT else KINDS[errors.kinds[d]],
                "iou": float(errors.overlaps[d]),
                "object": place.get(int(errors.objects[d])),
            }
            for d in here
        ],
    }
