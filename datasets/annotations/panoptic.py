"""COCO panoptic annotation files: read, check, and fill in missing fields.

Problems are reported once, at the start, by image and segment id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.annotations.instances import name_categories, repeated_names, tidy_sizes
from datasets.annotations.relatives import translate_panoptic
from datasets.annotations.rules import (
    LARGEST_AREA,
    Annotation,
    check_categories,
    check_images,
    preview,
    read_json,
    short,
)
from datasets.annotations.segment_maps import MAX_SEGMENT_ID
from util.dist import is_main_process
from util.files import is_count, is_number
from util.logging import get_logger


@dataclass
class PanopticAnnotations:
    """A COCO panoptic file. Every image has one annotation: the `file_name` of its PNG and its `segments_info`.

    A segment has id, category_id, iscrowd and area; area is None where the file does not give it.
    """

    images: dict[int, dict[str, Any]]  # by id
    annotations: dict[int, Annotation]  # by image id; listed images only
    categories: list[dict[str, Any]]  # id, name and isthing, by ascending id


def read_panoptic(ann_file: str | Path, img_folder: str | Path | None = None) -> PanopticAnnotations:
    """Load a COCO panoptic file.

    Missing category names (the id) and `iscrowd` (0) are filled in with one warning; missing areas are counted in the
    PNG files later. Annotations of unlisted images are ignored with another warning. What other tools write in another
    form is read as in `datasets.annotations.relatives`.

    Raises:
        FileNotFoundError, OSError: the file does not exist or cannot be read.
        ValueError: not a COCO panoptic file, or unusable; the message names the image and the segment.
    """
    data = read_json(Path(ann_file), "panoptic")
    try:
        notes = translate_panoptic(data, img_folder)
        check_images(data["images"])
        check_categories(data["categories"])
        _check_kinds(data["categories"])
        images = {image["id"]: image for image in data["images"]}
        annotations = _by_image(data["annotations"])
        category_ids = {category["id"] for category in data["categories"]}
        for annotation in annotations.values():
            _check_segments(annotation, category_ids)
        without = [str(image_id) for image_id in images if image_id not in annotations]
        if without:
            raise ValueError(
                f"no entry under `annotations` for {len(without)} of {len(images)} images (image {preview(without)}): "
                "add one with file_name and segments_info, or remove the images"
            )
    except ValueError as error:
        raise ValueError(f"{ann_file}: {error}") from None
    orphans = [str(image_id) for image_id in annotations if image_id not in images]
    listed = {image_id: annotations[image_id] for image_id in images}
    repairs = _fill_in(data, listed)
    if is_main_process():
        for note in [*notes, *repeated_names(data["categories"])]:
            get_logger().warning(f"{ann_file}: {note}")
        if repairs:
            get_logger().warning(f"{ann_file}: filled in missing {repairs}")
        if orphans:
            get_logger().warning(
                f"{ann_file}: ignored annotations of unlisted images: {len(orphans)} (image {preview(orphans)})"
            )
    return PanopticAnnotations(images, listed, sorted(data["categories"], key=lambda category: category["id"]))


def _check_kinds(categories: Sequence[dict[str, Any]]) -> None:
    for category in categories:
        if category.get("isthing") not in (0, 1):
            raise ValueError(
                f"category {category['id']} has isthing {short(category.get('isthing'))}: it must be 1 for a thing "
                "(countable) or 0 for stuff"
            )


def _by_image(annotations: Sequence[Any]) -> dict[int, Annotation]:
    found: dict[int, Annotation] = {}
    for annotation in annotations:
        image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not is_count(image_id):
            raise ValueError(f"every annotation needs an integer `image_id`, got {short(annotation)}")
        if image_id in found:
            raise ValueError(f"image {image_id} has two entries under `annotations`: put all its segments into one")
        name = annotation.get("file_name")
        if not isinstance(name, str) or not name or "\0" in name:
            raise ValueError(f"the annotation of image {image_id} has file_name {short(name)}: it must name the PNG")
        if not isinstance(annotation.get("segments_info"), list):
            raise ValueError(
                f"the annotation of image {image_id} has no list `segments_info`: it is not in the COCO panoptic format"
            )
        found[image_id] = annotation
    return found


def _check_segments(annotation: Annotation, category_ids: set[int]) -> None:
    seen = set()
    for segment in annotation["segments_info"]:
        number = segment.get("id") if isinstance(segment, dict) else None
        if not is_count(number) or not 1 <= number <= MAX_SEGMENT_ID:
            raise ValueError(
                f"image {annotation['image_id']} has a segment {short(segment)}: its id, the colour of its pixels, "
                f"must be an integer in 1..{MAX_SEGMENT_ID} (0 marks pixels without a segment)"
            )
        which = f"segment {number} of image {annotation['image_id']}"
        if number in seen:
            raise ValueError(f"{which} appears twice in segments_info: an image's segment ids must be unique")
        seen.add(number)
        category = segment.get("category_id")
        if not is_count(category) or category not in category_ids:
            raise ValueError(
                f"{which} has category_id {short(category)}, which `categories` does not list: add the category or "
                "correct the segment"
            )
        if segment.get("iscrowd") not in (None, 0, 1):
            raise ValueError(f"{which} has iscrowd {short(segment['iscrowd'])}: use 0 for one object, 1 for a crowd")


def _fill_in(data: dict[str, Any], annotations: dict[int, Annotation]) -> str:
    """Fill in the fields that `read_panoptic` lists; return a summary."""
    tidy_sizes(data["images"])
    nameless = name_categories(data["categories"])
    for category in data["categories"]:
        category["isthing"] = int(category["isthing"])
    segments = [segment for annotation in annotations.values() for segment in annotation["segments_info"]]
    without_crowd = [segment for segment in segments if segment.get("iscrowd") is None]
    without_area = [segment for segment in segments if not _has_area(segment)]
    for segment in segments:
        segment["iscrowd"] = int(segment.get("iscrowd") or 0)
    for segment in without_area:
        segment["area"] = None
    counts = {
        "category names ({})": nameless,
        "iscrowd of segments ({})": len(without_crowd),
        "areas of segments ({})": len(without_area),
    }
    return ", ".join(text.format(count) for text, count in counts.items() if count)


def _has_area(segment: dict[str, Any]) -> bool:
    area = segment.get("area")
    return is_number(area) and 0 < area <= LARGEST_AREA
