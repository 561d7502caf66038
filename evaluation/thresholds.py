"""The score threshold at which each class has its best F1, in the form that checkpoints keep as `thresholds`.

`util.loading.class_thresholds` reads it.
"""

from __future__ import annotations

from typing import Any

from evaluation.findings import IOU, MatchSummary, ThresholdSweep


def best_thresholds(matches: MatchSummary) -> dict[str, Any]:
    """The thresholds of an evaluation, as plain data.

    F1 is counted at IoU 0.5 by COCO's rules. Of several thresholds with the same F1 it is the highest, which keeps the
    fewest detections. A class without a true positive has None, and one without objects is left out.

    Returns:
        {"iou", "overall": {"threshold", "f1"} of all classes together or None, "classes": [{"id", "objects",
        "threshold", "f1"}]}.
    """
    classes = [
        {"id": class_id, "objects": sweep.counts.objects, **(_best(sweep) or {"threshold": None, "f1": 0.0})}
        for class_id, sweep in zip(matches.ids, matches.classes)
        if sweep.counts.objects
    ]
    return {"iou": IOU, "overall": _best(matches.overall), "classes": classes}


def _best(sweep: ThresholdSweep) -> dict[str, float] | None:
    if sweep.best is None:
        return None
    return {"threshold": max(0.0, sweep.best["threshold"]), "f1": sweep.best["f1"]}  # below 0 if a score is 0
