"""Checking all segmentations of an annotation file before training, without drawing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from datasets.annotations.headers import Size, annotated_size, read_header
from datasets.annotations.masks import CORNERS, FARTHEST, LONGEST, check_polygon, check_runs
from datasets.annotations.rules import Annotation, name_of, preview
from util.dist import is_main_process
from util.logging import get_logger

CHUNK = 10_000  # annotations whose numbers are in memory at a time
Images = Mapping[int, Mapping[str, Any]]


def check_segmentations(ann_file: str | Path, coco: COCO, img_folder: Path) -> None:
    """Reject segmentations that cannot be drawn, crowds' included; warn of those that cover nothing.

    Args:
        ann_file: the file, for messages.
        coco: the index over its annotations.
        img_folder: the folder of the images; a header is read only where a run-length code has not the annotated size.

    Raises:
        ValueError: names the first bad segmentation; or all of them are empty.
    """
    try:
        annotations = [a for a in coco.dataset["annotations"] if a["image_id"] in coco.imgs]
        warning = _check_all(annotations, coco.imgs, img_folder)
    except ValueError as error:
        raise ValueError(f"{ann_file}: {error}") from None
    if warning and is_main_process():
        get_logger().warning(f"{ann_file}: {warning}")


def _check_all(annotations: Sequence[Annotation], images: Images, img_folder: Path) -> str:
    """A summary of the polygons of fewer than three points; ValueError for the first bad segmentation."""
    files: dict[int, Size | None] = {}  # the sizes that were looked up

    def size_of(annotation: Annotation) -> Size | None:
        """(w, h) as annotated if the code has this size, else that of the image file; None if it cannot be opened."""
        image_id, code = annotation["image_id"], annotation["segmentation"].get("size")
        annotated = annotated_size(images[image_id])
        if annotated is not None and code == [annotated[1], annotated[0]]:
            return annotated
        if image_id not in files:
            header = read_header(img_folder / images[image_id]["file_name"])
            files[image_id] = header and header.is_read_as(annotated)
        return files[image_id]

    thin: list[int] = []  # annotations with a polygon of fewer than three points, or without any
    empty = 0
    for start in range(0, len(annotations), CHUNK):
        chunk = annotations[start : start + CHUNK]
        if not _can_be_drawn(chunk):
            for annotation in chunk:
                _check(annotation)
        for row, annotation in enumerate(chunk, start):
            segmentation = annotation["segmentation"]
            if isinstance(segmentation, dict):
                _check_code(annotation, size_of(annotation))
            elif not segmentation or min(map(len, segmentation)) < 2 * CORNERS:
                thin.append(row)
                empty += max(map(len, segmentation), default=0) < 2 * CORNERS
    if annotations and empty == len(annotations):
        raise ValueError(
            f"none of the {empty} annotations has a mask: each `segmentation` is empty or has fewer than three points "
            f"({name_of(annotations[0])}); add polygons or run-length codes, or run without --masks"
        )
    if not thin:
        return ""
    named = preview([name_of(annotations[row]) for row in thin])
    count = f"{len(thin)} segmentation{' has' if len(thin) == 1 else 's have'}"
    return (
        f"{count} no polygon or one of fewer than three points, which covers nothing; {empty} of them "
        f"{'is' if empty == 1 else 'are'} empty ({named})"
    )


def _can_be_drawn(annotations: Sequence[Annotation]) -> bool:
    """Whether all polygons pass `check_polygon`; False also where only the slow check can tell."""
    segmentations = [annotation.get("segmentation") for annotation in annotations]
    if not set(map(type, segmentations)) <= {list, dict}:
        return False
    rings = list(chain.from_iterable(entry for entry in segmentations if type(entry) is list))
    if not set(map(type, rings)) <= {list}:
        return False
    numbers = list(chain.from_iterable(rings))
    if not set(map(type, numbers)) <= {int, float}:
        return False
    try:
        values = np.array(numbers, dtype=np.float64)
    except OverflowError:  # an integer beyond float64
        return False
    lengths = np.array(list(map(len, rings)), dtype=np.int64)
    if (lengths % 2).any() or not (np.abs(values) <= FARTHEST).all():
        return False
    points = lengths[lengths > 0] // 2
    if not len(points):
        return True
    corners, starts = values.reshape(-1, 2), np.cumsum(points) - points
    extent = np.maximum.reduceat(corners, starts) - np.minimum.reduceat(corners, starts)  # [polygons, xy]
    return bool((extent.max(axis=1) * points <= LONGEST).all())  # no edge is longer than the extent


def _check(annotation: Annotation) -> None:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        return
    try:
        if segmentation is None:
            raise ValueError("no segmentation, which --masks needs")
        if not isinstance(segmentation, list | tuple):
            raise ValueError("a segmentation that is neither a list of polygons nor a run-length code")
        for polygon in segmentation:
            check_polygon(polygon)
    except ValueError as error:
        raise _refusal(annotation, error) from None


def _check_code(annotation: Annotation, size: Size | None) -> None:
    if size is None:
        return  # reading the image will say what is wrong with it
    width, height = size
    try:
        check_runs(annotation["segmentation"], height, width)
    except ValueError as error:
        raise _refusal(annotation, error) from None


def _refusal(annotation: Annotation, error: ValueError) -> ValueError:
    return ValueError(f"{name_of(annotation)} has {error}: correct it, remove the annotation, or run without --masks")
