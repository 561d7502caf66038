"""The panoptic map of a prediction → its segments, as the page draws them."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment

from prediction.result import Prediction
from util.pictures.masks import panoptic_colors


def segments_of(prediction: Prediction, threshold: float) -> list[dict[str, Any]]:
    """The segments as COCO's `segments_info` has them, each with what the page needs to draw it without the map's PNG.

    Args:
        prediction: of a panoptic model.
        threshold: of the map; the score of things whose detection `prediction` does not hold, since it holds the best.

    Returns:
        For each segment id, category_id, area, bbox, iscrowd; segmentation, its pixels as a compressed run-length
        encoding; isthing; color, as in `predict.py`'s pictures; of things also score, and query, that of the detection.
    """
    assert prediction.panoptic is not None
    ids = np.asfortranarray(prediction.panoptic.ids)
    kinds = prediction.panoptic.segments
    detections = detections_of(prediction, threshold)
    segments = []
    for kind, info, color in zip(kinds, prediction.panoptic.segments_info(), panoptic_colors(kinds)):
        encoded = coco_mask.encode((ids == info["id"]).view(np.uint8))
        segmentation = {"size": encoded["size"], "counts": encoded["counts"].decode()}
        segment = info | {"segmentation": segmentation, "isthing": int(kind["isthing"])}
        if kind["isthing"]:
            index = detections.get(info["id"])
            known = index is not None
            segment["score"] = float(prediction.scores[index]) if known else threshold
            segment["query"] = int(prediction.queries[index]) if known else None
        segments.append(segment | {"color": "#{:02x}{:02x}{:02x}".format(*color)})
    return segments


def detections_of(prediction: Prediction, threshold: float) -> dict[int, int]:
    """Id of a thing's segment → index of its detection.

    A segment lies where the mask of its query is the strongest, so no other detection of its class covers more of it.

    Args:
        prediction: of a panoptic model.
        threshold: of the map; detections with lower scores have no segment.
    """
    ids = prediction.panoptic.ids
    things = [segment for segment in prediction.panoptic.segments if segment["isthing"]]
    if not things or not len(prediction) or prediction.masks is None:
        return {}
    numbers = [segment["id"] for segment in things]
    fits = np.full((len(things), len(prediction)), -1.0)  # common pixels; -1: not its detection
    found = zip(prediction.masks.numpy(), prediction.labels.tolist(), prediction.scores.tolist())
    for index, (mask, label, score) in enumerate(found):
        if score >= threshold:
            common = np.bincount(ids[mask], minlength=int(ids.max()) + 1)[numbers]
            same_class = [segment["category_id"] == label for segment in things]
            fits[:, index] = np.where(same_class, common, -1)
    rows, columns = linear_sum_assignment(fits, maximize=True)
    return {numbers[row]: int(column) for row, column in zip(rows, columns) if fits[row, column] >= 0}
