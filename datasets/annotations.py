"""COCO annotation files: read, check, fill in what may be missing, and pack the objects into arrays.

What is wrong with a file is said once, at the start, with names: a broken file is refused, a repairable one is
repaired with one line of warning.

`N` objects of a file or an image, `K` keypoints.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from util.dist import is_main_process
from util.logging import get_logger

Annotation = dict[str, Any]

NAMED = 3  # how many culprits a summary names
ROUNDING = 0.05  # pixels; coordinates written with two decimals reach past the border by about 0.01


@dataclass
class Objects:
    """The objects of one image or many, one row each, in the file's order; crowds are not among them."""

    boxes: np.ndarray  # float32 [N, 4], xyxy in pixels, as annotated: not yet clamped
    labels: np.ndarray  # int64 [N]
    area: np.ndarray  # float32 [N], pixels
    names: np.ndarray  # int64 [N], annotation ids; -1 without
    segmentations: list[Any] | None  # N polygons or RLEs, on request
    keypoints: np.ndarray | None  # float32 [N, K, 3], where every object has K of them

    def between(self, start: int, stop: int) -> Objects:
        """Rows start..stop."""
        columns = (getattr(self, field.name) for field in fields(self))
        return Objects(*(None if column is None else column[start:stop] for column in columns))


def read_coco(ann_file: str | Path) -> tuple[COCO, str]:
    """Load a COCO instances file.

    Returns:
        The pycocotools index over the checked and repaired annotations (crowds, and boxes outside of their image,
        still in it as annotated: evaluation wants them), and a summary of the boxes that training clamps or drops,
        empty if there are none. The summary is logged as well.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a COCO instances file, or one with an annotation that cannot be used; the sentence names it.
    """
    data = _read_json(Path(ann_file))
    _check_images_and_categories(data, ann_file)
    _check_annotations(data, ann_file)
    repairs = _fill_in(data)
    problems = _find_bad_boxes(data)
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
                    f"{_name(annotation)} has no segmentation, but masks are wanted: add one or train without --masks"
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


def box_array(annotations: Sequence[Annotation]) -> np.ndarray:
    """The annotations' boxes as they stand, float64 [N, 4] (xywh, pixels); ValueError names those that are none."""
    for annotation in annotations:
        box = annotation.get("bbox")
        if not isinstance(box, list | tuple) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
            raise ValueError(f"{_name(annotation)} needs a bbox of four numbers [x, y, width, height], got {box!r}")
    boxes = np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64).reshape(-1, 4)
    bad = np.flatnonzero(~np.isfinite(boxes).all(axis=1))
    if len(bad):
        named = _some([f"{_name(annotations[i])}: {annotations[i]['bbox']}" for i in bad])
        raise ValueError(f"NaN or infinity in {len(bad)} of {len(boxes)} boxes ({named}): correct or remove them")
    return boxes


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"annotation file {path} does not exist: check --coco_path, --train_ann and --val_ann")
    try:
        with path.open("rb") as file:
            data = json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"annotation file {path} is not JSON ({error}): is it cut short, or something else?") from None
    if not isinstance(data, dict):
        raise ValueError(f"annotation file {path} holds a JSON {type(data).__name__}, but COCO instances are an object")
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise ValueError(f"annotation file {path} has no list `{key}`, so it is not in the COCO instances format")
    return data


def _check_images_and_categories(data: dict[str, Any], ann_file: str | Path) -> None:
    for key in ("images", "categories"):
        seen = set()
        for entry in data[key]:
            number = entry.get("id") if isinstance(entry, dict) else None
            if not isinstance(number, int):
                raise ValueError(f"{ann_file}: every entry of `{key}` needs a whole number as id, got {entry!r}")
            if number in seen:
                raise ValueError(f"{ann_file}: id {number} stands twice in `{key}`: ids must be different")
            seen.add(number)
    for image in data["images"]:
        if not isinstance(image.get("file_name"), str):
            raise ValueError(f"{ann_file}: image {image['id']} has no file_name")
        for side in ("width", "height"):
            if not isinstance(image.get(side, 0), int | float | None):
                raise ValueError(f"{ann_file}: image {image['id']} has {side} {image[side]!r}, which is no number")
    for category in data["categories"]:
        if category["id"] < 0:
            raise ValueError(f"{ann_file}: category id {category['id']} is negative: number categories from 0 or 1")


def _check_annotations(data: dict[str, Any], ann_file: str | Path) -> None:
    categories = {category["id"] for category in data["categories"]}
    seen = set()
    for annotation in data["annotations"]:
        for key in ("id", "image_id", "category_id"):
            if not isinstance(annotation, dict) or not isinstance(annotation.get(key), int):
                raise ValueError(f"{ann_file}: every annotation needs a whole number as {key}, got {annotation!r}")
        if annotation["category_id"] not in categories:
            raise ValueError(
                f"{ann_file}: {_name(annotation)} has category_id {annotation['category_id']}, which `categories` "
                "does not list: add the category or correct the annotation"
            )
        if annotation["id"] in seen:  # pycocotools would take one for the other
            raise ValueError(f"{ann_file}: annotation id {annotation['id']} stands twice: ids must be different")
        seen.add(annotation["id"])
    try:
        box_array(data["annotations"])
    except ValueError as error:
        raise ValueError(f"{ann_file}: {error}") from None


def _fill_in(data: dict[str, Any]) -> str:
    """Add missing `info`, category names (the id), `area` (the box's) and `iscrowd` (0); say what was missing."""
    repairs = []
    if "info" not in data:
        data["info"] = {}
        repairs.append("info")
    without_name = [category for category in data["categories"] if not isinstance(category.get("name"), str)]
    for category in without_name:
        category["name"] = str(category["id"])
    without_area = [annotation for annotation in data["annotations"] if not _has_area(annotation)]
    for annotation in without_area:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    without_crowd = [annotation for annotation in data["annotations"] if annotation.get("iscrowd") is None]
    for annotation in without_crowd:
        annotation["iscrowd"] = 0
    for lacking, one, many in (
        (without_name, "the name of {} category", "the names of {} categories"),
        (without_area, "the area of {} annotation", "the areas of {} annotations"),
        (without_crowd, "iscrowd of {} annotation", "iscrowd of {} annotations"),
    ):
        if lacking:
            repairs.append((one if len(lacking) == 1 else many).format(len(lacking)))
    return ", ".join(repairs)


def _find_bad_boxes(data: dict[str, Any]) -> str:
    """One sentence on the boxes that do not fit their image, and on annotations of images that are not listed."""
    annotations = data["annotations"]
    sizes = {image["id"]: (image.get("width") or math.inf, image.get("height") or math.inf) for image in data["images"]}
    orphan = np.array([annotation["image_id"] not in sizes for annotation in annotations], dtype=bool)  # [N]
    unlimited = (math.inf, math.inf)
    limit = np.array([sizes.get(a["image_id"], unlimited) for a in annotations], dtype=np.float64).reshape(-1, 2)
    boxes = box_array(annotations)
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
            named = _some([f"{_name(annotations[i])}: {annotations[i]['bbox']}" for i in culprits])
            parts.append(f"{len(culprits)} {one if len(culprits) == 1 else many} ({named})")
    return "; ".join(parts)


def _pack_keypoints(annotations: Sequence[Annotation]) -> np.ndarray | None:
    lengths = {len(annotation.get("keypoints") or ()) for annotation in annotations}
    if len(lengths) != 1 or 0 in lengths or min(lengths) % 3:
        return None  # detection lives without; a row of them for each object is all that can be stacked
    keypoints = np.array([annotation["keypoints"] for annotation in annotations], dtype=np.float32)
    return keypoints.reshape(len(annotations), -1, 3)


def _has_area(annotation: Annotation) -> bool:
    area = annotation.get("area")
    return isinstance(area, int | float) and math.isfinite(area)


def _name(annotation: Annotation) -> str:
    return f"annotation {annotation.get('id', '?')} of image {annotation.get('image_id', '?')}"


def _some(names: Sequence[str]) -> str:
    return "; ".join(names[:NAMED]) + ("; …" if len(names) > NAMED else "")
