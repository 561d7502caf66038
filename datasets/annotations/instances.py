"""COCO instances files: read, check, fill in missing fields, and pack the objects into arrays.

Problems are reported once, at the start, by image and annotation id: an unusable file is rejected (see
`datasets.annotations.rules`), a repairable one is repaired with one warning.

`N` objects of a file or an image, `K` keypoints.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from datasets.annotated_images import ObjectColumns
from datasets.annotations.rules import (
    LARGEST_AREA,
    LARGEST_NUMBER,
    Annotation,
    box_array,
    check_annotations,
    check_categories,
    check_images,
    name_of,
    preview,
    read_json,
)
from util.dist import is_main_process
from util.files import is_count, is_number
from util.logging import get_logger

ROUNDING = 0.05  # pixels; coordinates rounded to two decimals exceed the image by about 0.01


@dataclass
class Objects(ObjectColumns):
    """The objects of one or more images, one row each, in the file's order, without crowds.

    `names` holds their annotation ids.
    """

    boxes: np.ndarray  # float32 [N, 4], xyxy in pixels, as annotated: not yet clamped
    area: np.ndarray  # float32 [N], pixels
    segmentations: list[Any] | None  # N polygon lists or RLEs; None unless masks are needed
    keypoints: np.ndarray | None  # float32 [N, K, 3]; None unless every object has K keypoints


def read_coco(ann_file: str | Path) -> tuple[COCO, str]:
    """Load a COCO instances file.

    Returns:
        (coco, problems): the pycocotools index over the checked and repaired annotations, and a summary of the boxes
        that training clamps or drops, empty if there are none. The index keeps crowds and boxes outside their image
        as annotated, because evaluation needs them. The summary is also logged.

    Raises:
        FileNotFoundError, OSError: the file does not exist or cannot be read.
        ValueError: not a COCO instances file, or an annotation in it is unusable; the message names the annotation.
    """
    data = read_json(Path(ann_file))
    try:
        check_images(data["images"])
        check_categories(data["categories"])
        image_ids, category_ids = ({entry["id"] for entry in data[key]} for key in ("images", "categories"))
        boxes = check_annotations(data["annotations"], image_ids, category_ids)
    except ValueError as error:
        raise ValueError(f"{ann_file}: {error}") from None
    repairs = _fill_in(data)
    problems = _find_bad_boxes(data, boxes)
    if is_main_process():
        if repairs:
            get_logger().warning(f"{ann_file}: filled in missing {repairs}")
        if problems:
            get_logger().warning(f"{ann_file}: {problems}")
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco.createIndex()
    return coco, problems


def pack_objects(annotations: Sequence[Annotation], with_masks: bool = False) -> Objects:
    """COCO annotation dicts → arrays, without crowd regions.

    Args:
        annotations: of one or more images; `bbox` is xywh in pixels.
        with_masks: keep the segmentations.

    Raises:
        ValueError: a box is not four finite numbers, or, with `with_masks`, an object has no segmentation.
    """
    annotations = [annotation for annotation in annotations if not annotation.get("iscrowd", 0)]
    boxes = box_array(annotations).astype(np.float32)  # [N, 4] xywh
    area = [
        annotation["area"] if _has_area(annotation) else width * height
        for annotation, (_, _, width, height) in zip(annotations, boxes.tolist(), strict=True)
    ]
    boxes[:, 2:] += boxes[:, :2]  # xyxy; after the cast, as published: the last bit depends on it
    segmentations = None
    if with_masks:
        for annotation in annotations:
            if not isinstance(annotation.get("segmentation"), list | dict):
                raise ValueError(
                    f"{name_of(annotation)} has no segmentation, which --masks needs: add it, or train without --masks"
                )
        segmentations = [annotation["segmentation"] for annotation in annotations]
    return Objects(
        boxes=boxes,
        labels=np.array([annotation["category_id"] for annotation in annotations], dtype=np.int64),
        area=np.array(area, dtype=np.float32),
        names=np.array([annotation.get("id", -1) for annotation in annotations], dtype=np.int64),
        segmentations=segmentations,
        keypoints=_pack_keypoints(annotations),
    )


def _fill_in(data: dict[str, Any]) -> str:
    """Add missing `info`, category names (the id), `area` (the box's) and `iscrowd` (0); return a summary.

    An area that COCO's evaluation would ignore, negative or not a number, counts as missing. Sizes and crowd flags
    become integers. An invalid `num_keypoints` is removed, because evaluators reject it.
    """
    repairs = []
    if "info" not in data:
        data["info"] = {}
        repairs.append("info")
    nameless = name_categories(data["categories"])
    tidy_sizes(data["images"])
    without_area = [annotation for annotation in data["annotations"] if not _has_area(annotation)]
    for annotation in without_area:
        annotation["area"] = max(annotation["bbox"][2], 0) * max(annotation["bbox"][3], 0)
    without_crowd = [annotation for annotation in data["annotations"] if annotation.get("iscrowd") is None]
    for annotation in data["annotations"]:
        annotation["iscrowd"] = int(annotation.get("iscrowd") or 0)
        if not is_count(annotation.get("num_keypoints")):
            annotation.pop("num_keypoints", None)
    for missing, one, many in (
        (nameless, "name of {} category", "names of {} categories"),
        (len(without_area), "area of {} annotation", "areas of {} annotations"),
        (len(without_crowd), "iscrowd of {} annotation", "iscrowd of {} annotations"),
    ):
        if missing:
            repairs.append((one if missing == 1 else many).format(missing))
    return ", ".join(repairs)


def name_categories(categories: Sequence[dict[str, Any]]) -> int:
    """Use the id as the name of categories without one, and make all names printable; returns how many had none."""
    nameless = [category for category in categories if not isinstance(category.get("name"), str)]
    for category in nameless:
        category["name"] = str(category["id"])
    for category in categories:  # a lone surrogate, which JSON allows, can be neither printed nor drawn
        category["name"] = category["name"].encode("utf-8", "replace").decode()
    return len(nameless)


def tidy_sizes(images: Sequence[dict[str, Any]]) -> None:
    """Convert the images' `width` and `height` to int; remove null ones, because evaluators reject them."""
    for image in images:
        for side in {"width", "height"} & image.keys():
            size = image.pop(side)
            if size is not None:
                image[side] = int(size)


def _find_bad_boxes(data: dict[str, Any], boxes: np.ndarray) -> str:
    """Summary of the `boxes` [N, 4] (xywh) outside their image and of annotations of unlisted images; else empty."""
    annotations = data["annotations"]
    sizes = {image["id"]: (image.get("width") or math.inf, image.get("height") or math.inf) for image in data["images"]}
    orphan = np.array([annotation["image_id"] not in sizes for annotation in annotations], dtype=bool)  # [N]
    unlimited = (math.inf, math.inf)
    limit = np.array([sizes.get(a["image_id"], unlimited) for a in annotations], dtype=np.float64).reshape(-1, 2)
    corners = np.stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)  # [N, corner, xy]
    clamped = np.clip(corners, 0, limit[:, None])
    empty = ~orphan & (clamped[:, 1] <= clamped[:, 0]).any(axis=1)
    outside = ~orphan & ~empty & (abs(clamped - corners) > ROUNDING).any(axis=(1, 2))

    parts = []
    for found, one, many in (
        (outside, "box extends beyond its image: clamped", "boxes extend beyond their image: clamped"),
        (empty, "box has no area inside its image: dropped", "boxes have no area inside their image: dropped"),
        (orphan, "annotation belongs to an unlisted image: ignored", "annotations belong to unlisted images: ignored"),
    ):
        rows = np.flatnonzero(found)
        if len(rows):
            named = preview([f"{name_of(annotations[i])}: {annotations[i]['bbox']}" for i in rows])
            parts.append(f"{len(rows)} {one if len(rows) == 1 else many} ({named})")
    return "; ".join(parts)


def _pack_keypoints(annotations: Sequence[Annotation]) -> np.ndarray | None:
    lengths = {_count_keypoint_numbers(annotation.get("keypoints")) for annotation in annotations}
    if len(lengths) != 1 or 0 in lengths:
        return None  # detection does not need them, and only rows of one length can be stacked
    keypoints = np.array([annotation["keypoints"] for annotation in annotations], dtype=np.float32)
    return keypoints.reshape(len(annotations), -1, 3)


def _count_keypoint_numbers(keypoints: Any) -> int:
    """3 K, or 0 if these are not keypoints."""
    if not isinstance(keypoints, list | tuple) or len(keypoints) % 3:
        return 0
    usable = all(is_number(value) and abs(value) <= LARGEST_NUMBER for value in keypoints)
    return len(keypoints) if usable else 0


def _has_area(annotation: Annotation) -> bool:
    area = annotation.get("area")
    return is_number(area) and 0 <= area <= LARGEST_AREA
