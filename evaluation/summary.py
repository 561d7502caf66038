"""COCO's 12 numbers from precision and recall, for any limits on the detections per image and class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from util.coco_names import COCO_METRICS

# Each number: (AP or AR, IoU or None for the mean over all, area, which of the limits: first, second or the largest)
_FIRST, _SECOND, _LARGEST = 0, 1, -1
_DETECTION = (
    *(("AP", iou, "all", _LARGEST) for iou in (None, 0.5, 0.75)),
    *(("AP", None, area, _LARGEST) for area in ("small", "medium", "large")),
    *(("AR", None, "all", which) for which in (_FIRST, _SECOND, _LARGEST)),
    *(("AR", None, area, _LARGEST) for area in ("small", "medium", "large")),
)
_KEYPOINTS = tuple(
    (kind, iou, area, _LARGEST)
    for kind in ("AP", "AR")
    for iou, area in ((None, "all"), (0.5, "all"), (0.75, "all"), (None, "medium"), (None, "large"))
)


class SummarizedCOCOeval(COCOeval):
    """pycocotools' `COCOeval` with a summary that follows `params.maxDets`.

    AP, and recall by area, are those at the largest limit; the other recalls are those at the first, the second and
    the largest limit. pycocotools reads AP at exactly 100 detections: with other limits its summary is -1 or fails.
    With the published limits 1, 10, 100 the numbers are the same bits.
    """

    def summarize(self) -> None:
        """Fill `stats`, and print the summary."""
        self.stats, lines = summary_of(self)
        print("\n".join(lines))


def summary_of(evaluated: COCOeval) -> tuple[np.ndarray, list[str]]:
    """The numbers, -1 for "nothing to measure", and a line of text for each, in pycocotools' wording.

    Args:
        evaluated: after `accumulate`.

    Returns:
        (float64 [12], or [10] for keypoints; as many lines).

    Raises:
        ValueError: it has no curves.
    """
    if not evaluated.eval:
        raise ValueError("there are no curves to summarize: call accumulate() first")
    params, curves = evaluated.params, evaluated.eval
    limits = checked_limits(params.maxDets)
    ious = np.asarray(params.iouThrs)
    stats, lines = [], []
    for kind, iou, area, which in _KEYPOINTS if params.iouType == "keypoints" else _DETECTION:
        values = curves["precision" if kind == "AP" else "recall"]  # [T, R, K, A, M] or [T, K, A, M]
        limit = _place(which, limits)
        values = values[..., [i for i, label in enumerate(params.areaRngLbl) if label == area], limit]
        if iou is not None:
            values = values[np.isclose(ious, iou)]
        measured = values[values > -1]
        stats.append(np.mean(measured) if len(measured) else -1)
        name = {"AP": "Average Precision", "AR": "Average Recall"}[kind]
        at = f"{ious[0]:0.2f}:{ious[-1]:0.2f}" if iou is None else f"{iou:0.2f}"
        where = f"IoU={at:<9} | area={area:>6s} | maxDets={limits[limit]:>3d}"
        lines.append(f" {name:<18} ({kind}) @[ {where} ] = {stats[-1]:0.3f}")
    return np.array(stats, dtype=np.float64), lines


def metric_names(limits: Sequence[int]) -> list[str]:
    """The short names of the 12 numbers; with the published limits 1, 10, 100 those of `COCO_METRICS`."""
    recalls = {
        "AR1": f"AR{limits[_place(_FIRST, limits)]}",
        "AR10": f"AR{limits[_place(_SECOND, limits)]}",
        "AR100": f"AR{limits[_LARGEST]}",
    }
    return [recalls.get(name, name) for name in COCO_METRICS]


def checked_limits(limits: Any) -> list[int]:
    """`params.maxDets` in ascending order.

    Raises:
        ValueError: it is not a list of whole numbers of at least 1.
    """
    try:
        numbers = sorted(int(limit) for limit in limits)
        whole = numbers == sorted(limits) and numbers[0] >= 1
    except (TypeError, ValueError, IndexError, OverflowError):
        whole = False
    if not whole:
        raise ValueError(
            "params.maxDets must be a list of whole numbers, the limits on detections per image and class, such as "
            f"[1, 10, 100], got {str(limits)[:100]}"
        )
    return numbers


def _place(which: int, limits: Sequence[int]) -> int:
    return which if which < 0 else min(which, len(limits) - 1)
