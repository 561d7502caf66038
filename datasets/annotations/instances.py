"""COCO instances files: read, check, fill in missing fields, and pack the objects into arrays.

Problems are reported once, at the start, by image and annotation id: an unusable file is rejected (see
`datasets.annotations.rules`), a repairable one is repaired with one warning.

`N` objects of a file or an image, `K` keypoints.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from datasets.annotated_images import ObjectColumns
from datasets.annotations.boxes import Boxes
from datasets.annotations.relatives import translate
from datasets.annotations.rules import (
    LARGEST_AREA,
    LARGEST_NUMBER,
    LISTED,
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


@dataclass
class Objects(ObjectColumns):
    """The objects of one or more images, one row each, in the file's order, without crowds.

    `names` holds their annotation ids.
    """

    boxes: np.ndarray  # float32 [N, 4], xyxy in pixels, as annotated: not yet clamped
    area: np.ndarray  # float32 [N], pixels
    segmentations: list[Any] | None  # N polygon lists or RLEs; None unless masks are needed
    keypoints: np.ndarray | None  # float32 [N, K, 3]; None unless every object has K keypoints


def read_coco(
    ann_file: str | Path,
    img_folder: str | Path | None = None,
    *,
    report: bool = True,
    read: Callable[[], dict[str, Any]] | None = None,
) -> tuple[COCO, str]:
    """Load a COCO instances file, or annotations of another format in COCO's form.

    Args:
        ann_file: the file; with `read`, what messages name.
        img_folder: the folder of the images, if known: it tells file names in URLs, and turned images.
        report: log what was repaired and what is probably wrong.
        read: reads the annotations instead, see `datasets.formats.part.Part.read`.

    Returns:
        (coco, problems): the pycocotools index over the checked and repaired annotations, and a summary of the boxes
        that training clamps or drops, empty if there are none. The index keeps crowds and boxes outside their image
        as annotated, because evaluation needs them. The summary is among what is logged.

    Raises:
        FileNotFoundError, OSError: the file does not exist or cannot be read.
        ValueError: not a COCO instances file, or an annotation in it is unusable; the message names the annotation.
    """
    data = read() if read else read_json(Path(ann_file))
    try:
        warnings = translate(data, img_folder)
        check_images(data["images"])
        check_categories(data["categories"])
        image_ids, category_ids = ({entry["id"] for entry in data[key]} for key in ("images", "categories"))
        boxes = check_annotations(data["annotations"], image_ids, category_ids)
        boxes = Boxes.of(data["annotations"], boxes, data["images"], Path(img_folder) if img_folder else None)
        repairs = _fill_in(data)
        warnings += [f"filled in missing {repairs}"] if repairs else []
        warnings += repeated_names(data["categories"])
        problems, usable = boxes.find_bad()
        warnings += [problems] if problems else []
        warnings += boxes.suspicions(usable)
    except ValueError as error:
        raise ValueError(f"{ann_file}: {error}") from None
    if report and is_main_process():
        for warning in warnings:
            get_logger().warning(f"{ann_file}: {warning}")
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
    return Objects(
        boxes=_corners(boxes),
        labels=np.array([annotation["category_id"] for annotation in annotations], dtype=np.int64),
        area=np.array(area, dtype=np.float32),
        names=np.array([annotation.get("id", -1) for annotation in annotations], dtype=np.int64),
        segmentations=_segmentations(annotations) if with_masks else None,
        keypoints=_pack_keypoints(annotations),
    )


def rows_of(annotations: Sequence[Annotation]) -> np.ndarray:
    """Checked annotations as float64 [N, 8]: id, image_id, category_id, iscrowd, bbox (xywh, pixels)."""
    rows = np.empty((len(annotations), 8))
    for column, key in enumerate(("id", "image_id", "category_id", "iscrowd")):
        rows[:, column] = np.fromiter(map(itemgetter(key), annotations), np.float64, len(annotations))
    numbers = chain.from_iterable(map(itemgetter("bbox"), annotations))
    rows[:, 4:] = np.fromiter(numbers, np.float64, 4 * len(annotations)).reshape(-1, 4)
    return rows


def pack_rows(
    rows: np.ndarray, annotations: Sequence[Annotation], image_ids: Sequence[int], with_masks: bool
) -> tuple[Objects, np.ndarray]:
    """Checked annotations → the objects of these images, in the order of the images, and their number in each.

    Args:
        rows: the annotations as from `rows_of`.
        annotations: the dicts.
        image_ids: ascending; annotations of other images are left out, as crowds are.
        with_masks: keep the segmentations.
    """
    ids = np.array(image_ids, dtype=np.float64)
    used = np.flatnonzero((rows[:, 3] == 0) & np.isin(rows[:, 1], ids))
    order = used[np.argsort(rows[used, 1], kind="stable")]
    counts = np.bincount(np.searchsorted(ids, rows[order, 1]), minlength=len(ids))
    annotations = [annotations[row] for row in order.tolist()]
    objects = Objects(
        boxes=_corners(rows[order, 4:].astype(np.float32)),
        labels=rows[order, 2].astype(np.int64),
        area=np.fromiter(map(itemgetter("area"), annotations), np.float64, len(annotations)).astype(np.float32),
        names=rows[order, 0].astype(np.int64),
        segmentations=_segmentations(annotations) if with_masks else None,
        keypoints=_pack_keypoints(annotations),
    )
    return objects, counts


def _corners(boxes: np.ndarray) -> np.ndarray:
    boxes[:, 2:] += boxes[:, :2]  # xyxy; after the cast to float32, as published: the last bit depends on it
    return boxes


def _segmentations(annotations: Sequence[Annotation]) -> list[Any]:
    for annotation in annotations:
        if not isinstance(annotation.get("segmentation"), list | dict):
            raise ValueError(
                f"{name_of(annotation)} has no segmentation, which --masks needs: add it, or train without --masks"
            )
    return [annotation["segmentation"] for annotation in annotations]


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
    annotations = data["annotations"]
    without_area = [] if _all_have_areas(annotations) else [a for a in annotations if not _has_area(a)]
    for annotation in without_area:
        annotation["area"] = max(annotation["bbox"][2], 0) * max(annotation["bbox"][3], 0)
    without_crowd = [annotation for annotation in annotations if annotation.get("iscrowd") is None]
    for annotation in annotations:
        if type(annotation.get("iscrowd")) is not int:
            annotation["iscrowd"] = int(annotation.get("iscrowd") or 0)
        if "num_keypoints" in annotation and not is_count(annotation["num_keypoints"]):
            del annotation["num_keypoints"]
    for missing, one, many in (
        (nameless, "name of {} category", "names of {} categories"),
        (len(without_area), "area of {} annotation", "areas of {} annotations"),
        (len(without_crowd), "iscrowd of {} annotation", "iscrowd of {} annotations"),
    ):
        if missing:
            repairs.append((one if missing == 1 else many).format(missing))
    return ", ".join(repairs)


def name_categories(categories: Sequence[dict[str, Any]]) -> int:
    """Use the id as the name of categories without one, and make all names printable; returns how many had none.

    A number becomes text. A name of white space alone counts as missing.
    """
    nameless = 0
    for category in categories:
        name = category.get("name")
        if is_number(name):
            name = str(name)
        if not isinstance(name, str) or not name.strip():
            nameless += 1
            name = str(category["id"])
        # a lone surrogate, which JSON allows, can be neither printed nor drawn
        category["name"] = name.encode("utf-8", "replace").decode()
    return nameless


def repeated_names(categories: Sequence[dict[str, Any]]) -> list[str]:
    """A warning if categories share a name: they are different classes all the same."""
    first: dict[str, int] = {}
    repeated = [c for c in categories if first.setdefault(c["name"], c["id"]) != c["id"]]
    named = preview([f"{c['name']!r:.60}: {first[c['name']]} and {c['id']}" for c in repeated[: LISTED + 1]])
    count = f"{len(repeated)} categor{'y has' if len(repeated) == 1 else 'ies have'}"
    return [f"{count} the name of another ({named}): they are different classes"] if repeated else []


def tidy_sizes(images: Sequence[dict[str, Any]]) -> None:
    """Convert the images' `width` and `height` to int; remove null ones, because evaluators reject them."""
    for image in images:
        for side in {"width", "height"} & image.keys():
            size = image.pop(side)
            if size is not None:
                image[side] = int(size)


def _pack_keypoints(annotations: Sequence[Annotation]) -> np.ndarray | None:
    if not all("keypoints" in annotation for annotation in annotations):
        return None
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


def _all_have_areas(annotations: Sequence[Annotation]) -> bool:
    """Whether all pass `_has_area`; False also where only that can tell."""
    areas = [annotation.get("area") for annotation in annotations]
    if not set(map(type, areas)) <= {int, float}:
        return False
    try:
        areas = np.fromiter(areas, np.float64, len(areas))
    except OverflowError:  # an integer beyond float64
        return False
    return bool(((areas >= 0) & (areas <= LARGEST_AREA)).all())


def _has_area(annotation: Annotation) -> bool:
    area = annotation.get("area")
    return is_number(area) and 0 <= area <= LARGEST_AREA
