"""The ground truth of an evaluation: a checked copy of what the evaluation reads."""

import io
import math
from collections.abc import Iterable
from contextlib import redirect_stdout
from typing import Any

from pycocotools.coco import COCO

from datasets.annotations.masks import segmentation_to_rle
from datasets.annotations.rules import name_of
from util.files import MAX_EXACT_INT


def copy_ground_truth(coco_gt: COCO, needed: Iterable[str]) -> tuple[COCO, bool]:
    """Copy what an evaluation reads from `coco_gt`; the annotations are new dicts because pycocotools modifies them.

    A missing `iscrowd` becomes 0, a missing `area` that of the box. Segmentations become compressed run-length codes,
    by the function that makes the training masks, so that no evaluator draws them in its own way. If annotation ids are
    below 1 or not unique, all annotations are renumbered: COCO's matching stores annotation ids, and 0 means
    "unmatched".

    Args:
        coco_gt: not modified.
        needed: keys that every annotation must have; `bbox` must be one of them.

    Returns:
        (the copy, whether annotations were renumbered).

    Raises:
        ValueError: an image id or an annotation cannot be evaluated.
    """
    for image_id in coco_gt.imgs:
        if not 0 <= image_id <= MAX_EXACT_INT:
            raise ValueError(f"the ground truth has an image with id {image_id}, but ids must be in 0..{MAX_EXACT_INT}")
    annotations = [_copy_annotation(annotation, set(needed)) for annotation in coco_gt.dataset.get("annotations", [])]
    for annotation in annotations:
        if "segmentation" in annotation and annotation["image_id"] in coco_gt.imgs:
            annotation["segmentation"] = _to_rle(annotation, coco_gt.imgs[annotation["image_id"]])
    ids = {annotation["id"] for annotation in annotations}
    renumbered = min(ids, default=1) < 1 or len(ids) < len(annotations)
    if renumbered:
        for number, annotation in enumerate(annotations, start=1):
            annotation["id"] = number
    own = COCO()
    own.dataset = {**coco_gt.dataset, "annotations": annotations}
    with redirect_stdout(io.StringIO()):
        own.createIndex()
    return own, renumbered


def _to_rle(annotation: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    width, height = image.get("width"), image.get("height")
    if not width or not height:
        raise ValueError(
            f"image {image['id']} has no width and height, which masks are evaluated at: add them to the annotation "
            "file"
        )
    try:
        return segmentation_to_rle(annotation["segmentation"], int(height), int(width))
    except ValueError as error:
        raise ValueError(f"{name_of(annotation)} has {error}: correct it, or do not evaluate masks") from None


def _copy_annotation(annotation: dict[str, Any], needed: set[str]) -> dict[str, Any]:
    which = f"annotation {annotation['id']} of image {annotation['image_id']}"
    missing = sorted(name for name in needed if annotation.get(name) is None)
    if missing:
        raise ValueError(f"{which} has no {', '.join(missing)}: add it to the annotation file, or do not evaluate it")
    box = annotation["bbox"]
    if len(box) != 4 or not all(math.isfinite(number) for number in box):
        raise ValueError(f"{which} has bbox {box}: it must be four finite numbers x, y, width, height")
    keys = ("id", "image_id", "category_id", "area", "num_keypoints", *needed)
    own = {key: annotation[key] for key in keys if annotation.get(key) is not None}
    own.setdefault("area", box[2] * box[3])
    own["iscrowd"] = annotation.get("iscrowd") or 0
    return own
