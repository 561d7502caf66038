"""The content of `eval/errors.json`: kinds of errors, what each costs, and the worst pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools.coco import COCO

from evaluation.errors.costs import Costs, costs_of
from evaluation.errors.kinds import BACKGROUND_IOU, CORRECT, KINDS, MISSED, Errors, find_errors, found_objects
from evaluation.errors.kinds import missed_objects as missed
from evaluation.errors.worst import describe_picture, worst_pictures
from evaluation.findings import IOU, MatchSummary

NOTE = (
    "kinds of errors and their costs as in TIDE (Bolya et al. 2020); AP_cost: how much AP50 rises when the errors of "
    "this kind alone are corrected, over detections of all scores; count: errors among the detections with score >= "
    "threshold, which has the best F1; missed: objects that no such detection finds, mislabels or misplaces; null: "
    "nothing to measure"
)


def errors_content(summary: MatchSummary, coco: COCO, images: int) -> dict[str, Any]:
    """See the module.

    Args:
        summary: of the evaluation.
        coco: its ground truth, for the names and sizes of the pictures.
        images: how many were evaluated.
    """
    errors = find_errors(summary)
    costs = costs_of(summary, errors)
    at = summary.detections.rows[:, 5] >= summary.threshold
    whole = ~summary.objects.crowd
    found = found_objects(errors, len(whole), at)
    is_missed = missed(errors, summary, at)
    counts = {kind: int((at & (errors.kinds == k)).sum()) for k, kind in enumerate(KINDS)}
    counts[MISSED] = int(is_missed.sum())
    return {
        "iou": IOU,
        "background_iou": BACKGROUND_IOU,
        "note": NOTE,
        "threshold": summary.threshold,
        "images": images,
        "objects": int(whole.sum()),
        "found": int(found.sum()),
        "detections": int((at & (errors.kinds >= CORRECT)).sum()),
        "AP50": costs.mean(),
        "kinds": [{"kind": kind, "AP_cost": costs.cost(kind), "count": counts[kind]} for kind in counts],
        "per_class": _per_class(summary, errors, costs, at, found, is_missed),
        "pictures": [
            _entry(coco, image_id) | {"group": group, "weight": weight} | describe_picture(summary, errors, image_id)
            for image_id, group, weight in worst_pictures(summary, errors)
        ],
    }


def _per_class(
    summary: MatchSummary, errors: Errors, costs: Costs, at: np.ndarray, found: np.ndarray, is_missed: np.ndarray
) -> list[dict[str, Any]]:
    classes, size = summary.objects.classes, len(summary.ids)
    objects = np.bincount(classes[~summary.objects.crowd], minlength=size)
    found, lost = np.bincount(classes[found], minlength=size), np.bincount(classes[is_missed], minlength=size)
    shown = at & (errors.kinds >= 0)
    wrong = np.zeros((len(KINDS), size), dtype=np.int64)
    np.add.at(wrong, (errors.kinds[shown], summary.labels[shown]), 1)
    return [
        {
            "id": summary.ids[k],
            "name": summary.names[k],
            "objects": int(objects[k]),
            "found": int(found[k]),
            "counts": {kind: int(wrong[place, k]) for place, kind in enumerate(KINDS)} | {MISSED: int(lost[k])},
            "AP_cost": {kind: costs.cost_of_class(kind, k) for kind in (*KINDS, MISSED)},
        }
        for k in range(size)
    ]


def _entry(coco: COCO, image_id: int) -> dict[str, Any]:
    image = coco.imgs[image_id]
    return {"image_id": image_id, **{key: image.get(key) for key in ("file_name", "width", "height")}}
