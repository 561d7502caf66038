"""COCO annotation files: read, check, fill in what may be missing, and pack the objects into arrays.

What is wrong with a file is said once, at the start, with names: a broken file is refused (`datasets.annotations.rules`
says when), a repairable one is repaired with one line of warning.

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
    read_json,
    some,
)
from util.dist import is_main_process
from util.files import is_count, is_number
from util.logging import get_logger

ROUNDING = 0.05  # pixels; coordinates written with two decimals reach past the border by about 0.01


@dataclass
class Objects(ObjectColumns):
    """The objects of one image or many, one row each, in the file's order; crowds are not among them.

    Their `names` are annotation ids.
    """

    boxes: np.ndarray  # float32 [N, 4], xyxy in pixels, as annotated: not yet clamped
    area: np.ndarray  # float32 [N], pixels
    segmentations: list[Any] | None  # N polygons or RLEs, on request
    keypoints: np.ndarray | None  # float32 [N, K, 3], where every object has K of them


def read_coco(ann_file: str | Path) -> tuple[COCO, str]:
    """Load a COCO instances file.

    Returns:
        The pycocotools index over the checked and repaired annotations (crowds, and boxes outside of their image,
        still in it as annotated: evaluation wants them), and a summary of the boxes that training clamps or drops,
        empty if there are none. The summary is logged as well.

    Raises:
        FileNotFoundError, OSError: no such file, or one that cannot be read.
        ValueError: not a COCO instances file, or one with an annotation that cannot be used; the sentence names it.
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
            get_logger().warning(f"{ann_file} lacks {repairs}: filled in")
        if problems:
            get_logger().warning(f"{ann_file}: {problems}")
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco.createIndex()
    return coco, problems


def pack_objects(annotations: Sequence[Annotation], with_masks: bool = False) -> Objects:
    """COCO annotation dicts → arrays, crowd regions left out.

    Raises:
        ValueError: a box that is not four finite numbers, or with `with_masks` an object without segmentation.
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
                    f"{name_of(annotation)} has no segmentation, but masks are wanted: add one or train without --masks"
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
    """Add missing `info`, category names (the id), `area` (the box's) and `iscrowd` (0); say what was missing.

    An area that COCO's evaluation would leave out, being negative or no number, counts as missing. Sizes and crowd
    flags become whole numbers; a number of keypoints that is none goes: evaluators do not take it.
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
    for lacking, one, many in (
        (nameless, "the name of {} category", "the names of {} categories"),
        (len(without_area), "the area of {} annotation", "the areas of {} annotations"),
        (len(without_crowd), "iscrowd of {} annotation", "iscrowd of {} annotations"),
    ):
        if lacking:
            repairs.append((one if lacking == 1 else many).format(lacking))
    return ", ".join(repairs)


def name_categories(categories: Sequence[dict[str, Any]]) -> int:
    """Give categories without a name their id for one, make all names printable; how many had none."""
    nameless = [category for category in categories if not isinstance(category.get("name"), str)]
    for category in nameless:
        category["name"] = str(category["id"])
    for category in categories:  # half a surrogate pair, which JSON can spell, can be neither printed nor drawn
        category["name"] = category["name"].encode("utf-8", "replace").decode()
    return len(nameless)


def tidy_sizes(images: Sequence[dict[str, Any]]) -> None:
    """Make the sizes that images state whole numbers; those of null go: evaluators do not take them."""
    for image in images:
        for side in {"width", "height"} & image.keys():
            size = image.pop(side)
            if size is not None:
                image[side] = int(size)


def _find_bad_boxes(data: dict[str, Any], boxes: np.ndarray) -> str:
    """One sentence on `boxes` [N, 4] that do not fit their image, and on annotations of images that are not listed."""
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
        (outside, "box reaches past its image: clamped", "boxes reach past their image: clamped"),
        (empty, "box has no size inside its image: dropped", "boxes have no size inside their image: dropped"),
        (orphan, "annotation belongs to no listed image: ignored", "annotations belong to no listed image: ignored"),
    ):
        culprits = np.flatnonzero(found)
        if len(culprits):
            named = some([f"{name_of(annotations[i])}: {annotations[i]['bbox']}" for i in culprits])
            parts.append(f"{len(culprits)} {one if len(culprits) == 1 else many} ({named})")
    return "; ".join(parts)


def _pack_keypoints(annotations: Sequence[Annotation]) -> np.ndarray | None:
    lengths = {_count_keypoint_numbers(annotation.get("keypoints")) for annotation in annotations}
    if len(lengths) != 1 or 0 in lengths:
        return None  # detection lives without; a row of them for each object is all that can be stacked
    keypoints = np.array([annotation["keypoints"] for annotation in annotations], dtype=np.float32)
    return keypoints.reshape(len(annotations), -1, 3)


def _count_keypoint_numbers(keypoints: Any) -> int:
    """3 K; 0 if they are none."""
    if not isinstance(keypoints, list | tuple) or len(keypoints) % 3:
        return 0
    usable = all(is_number(value) and abs(value) <= LARGEST_NUMBER for value in keypoints)
    return len(keypoints) if usable else 0


def _has_area(annotation: Annotation) -> bool:
    area = annotation.get("area")
    return is_number(area) and 0 <= area <= LARGEST_AREA
