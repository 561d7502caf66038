"""Reading and checking COCO annotation files; an unusable entry is rejected, by image and annotation id.

An entry is rejected if it would fail later or be misread: the id of an image or category that is not an integer or
appears twice, a JSON key that appears twice, a box that is not four numbers. Fields that training does not read may
hold anything. `datasets.annotations.relatives` has translated what other tools write in another form.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from util.files import MAX_EXACT_INT, is_count, is_number
from util.loading import json_text

Annotation = dict[str, Any]

LISTED = 3  # how many offending entries a message lists
LARGEST_CATEGORY_ID = 99_999  # the class head has a row for every id up to the largest
LARGEST_AREA = 1e10  # pixels; COCO's evaluation ignores larger objects
LARGEST_NUMBER = 2**31 - 1  # pixels: limit of an image's sides and of the absolute values in a box

_OTHER_BOXES = {
    0: "remove the annotation if it has no box",
    5: "it looks like a rotated box; write the upright rectangle around the object",
    8: "it looks like the corners of a rotated box; write the upright rectangle around the object",
}

_SHORT = reprlib.Repr()
_SHORT.maxdict, _SHORT.maxlist, _SHORT.maxlong, _SHORT.maxstring, _SHORT.maxother = 8, 8, 30, 60, 60


def read_json(path: Path, kind: str = "instances") -> dict[str, Any]:
    """Read a COCO annotation file, in any of JSON's encodings.

    Args:
        path: the file.
        kind: the format's name in messages, "instances" or "panoptic".

    Returns:
        The parsed object; it has the lists `images`, `annotations` and `categories`, whose entries are not checked yet.

    Raises:
        FileNotFoundError, OSError: the file does not exist or cannot be read.
        ValueError: not JSON, a key twice in one object, or not in the COCO format.
    """
    data = json_text.read_json(
        path,
        "annotation file",
        if_missing="check --coco_path, --train_ann and --val_ann",
        if_nested=f"is nested too deeply to be in the COCO {kind} format",
    )
    if not isinstance(data, dict):
        raise ValueError(
            f"annotation file {path} holds a JSON {type(data).__name__}, but a COCO {kind} file must hold an object"
        )
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(data.get(key), list)]
    if missing == ["annotations"] and "annotations" not in data:
        raise ValueError(
            f"annotation file {path} lists images without `annotations`, as COCO's image_info files of the test images "
            "do: training and evaluation need annotations; to detect objects in these images instead, run python "
            f"predict.py CHECKPOINT IMAGES --ann {path} --out FOLDER"
        )
    if missing:
        raise ValueError(
            f"annotation file {path} has no list `{missing[0]}`: it is not in the COCO {kind} format; "
            "add the list, or pass another file"
        )
    return data


def check_images(images: Sequence[Any]) -> None:
    """Reject images without a unique id or a usable file name, or with an invalid size (0 means unknown).

    A file name may contain folders, leave the image folder or be absolute: the file is only ever read, as an image.

    Raises:
        ValueError: names the image.
    """
    _check_ids(images, "images", MAX_EXACT_INT)
    for image in images:
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"image {image['id']} has no file_name: add it, or remove the image")
        if "\0" in name or not _is_encodable(name):
            raise ValueError(
                f"image {image['id']} has file_name {short(name)}, which is not a valid file name: correct it"
            )
        for side in ("width", "height"):
            value = image.get(side)
            if value is None:
                continue
            if not is_number(value) or not 0 <= value <= LARGEST_NUMBER or value != int(value):
                raise ValueError(
                    f"image {image['id']} has {side} {short(value)}, which is not a size in pixels: correct it, "
                    "or omit it to use the size of the image file"
                )


def check_categories(categories: Sequence[Any]) -> None:
    """Reject categories without a unique id in 0..LARGEST_CATEGORY_ID, with a ValueError."""
    _check_ids(categories, "categories", LARGEST_CATEGORY_ID)


def check_annotations(annotations: Sequence[Any], image_ids: set[int], category_ids: set[int]) -> np.ndarray:
    """Reject annotations with an unusable image, category, box or crowd flag; their own ids are not looked at.

    Annotations of unlisted images pass, unless all are.

    Returns:
        Their boxes, float64 [N, 4], see `box_array`.

    Raises:
        ValueError: names the annotation and its image.
    """
    for key in ("image_id", "category_id"):
        for annotation in _without_count(annotations, key):
            raise ValueError(
                f"every annotation needs an integer `{key}` in 0..{MAX_EXACT_INT}, got {short(annotation)}: write "
                f"the `id` of its {'image' if key == 'image_id' else 'category'}"
            )
    if not {annotation["category_id"] for annotation in annotations} <= category_ids:
        wrong = next(annotation for annotation in annotations if annotation["category_id"] not in category_ids)
        raise ValueError(
            f"{name_of(wrong)} has category_id {wrong['category_id']}, which `categories` does not list: "
            "add the category or correct the annotation"
        )
    crowds = [annotation.get("iscrowd") for annotation in annotations]
    if not set(map(type, crowds)) <= {int, type(None)} or not set(crowds) <= {0, 1, None}:
        for annotation, crowd in zip(annotations, crowds, strict=True):
            if crowd is not None and crowd not in (0, 1):
                raise ValueError(
                    f"{name_of(annotation)} has iscrowd {short(crowd)}: use 0 for one object, 1 for a crowd"
                )
    if annotations and image_ids.isdisjoint(annotation["image_id"] for annotation in annotations):
        raise ValueError(
            f"none of the {len(annotations)} annotations belongs to a listed image ({name_of(annotations[0])}): "
            "their image_id must be an id under `images`"
        )
    return box_array(annotations)


def box_array(annotations: Sequence[Annotation]) -> np.ndarray:
    """The annotations' boxes, unchanged: float64 [N, 4] (xywh, pixels); ValueError lists the invalid ones."""
    boxes = [annotation.get("bbox") for annotation in annotations]
    if not set(map(type, boxes)) <= {list} or not set(map(len, boxes)) <= {4} or _types_in(boxes) - {int, float}:
        for annotation, box in zip(annotations, boxes, strict=True):
            if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)):
                advice = "write the upright rectangle around the object, or remove the annotation"
                advice = _OTHER_BOXES.get(len(box), advice) if isinstance(box, list | tuple) else advice
                raise ValueError(
                    f"{name_of(annotation)} needs a bbox of four numbers [x, y, width, height], got {short(box)}: "
                    + advice
                )
    try:
        array = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4)
    except OverflowError:  # an integer beyond float64
        array = None
    if array is not None and (np.abs(array) <= LARGEST_NUMBER).all():
        return array
    invalid = [a for a in annotations if not all(-LARGEST_NUMBER <= value <= LARGEST_NUMBER for value in a["bbox"])]
    named = preview([f"{name_of(annotation)}: {short(annotation['bbox'])}" for annotation in invalid[: LISTED + 1]])
    raise ValueError(
        f"found NaN, infinity or values beyond any image in {len(invalid)} of {len(annotations)} boxes ({named}): "
        "correct or remove them"
    )


def name_of(annotation: Annotation) -> str:
    """How messages refer to an annotation: by its id and its image's."""
    own, image = (short(annotation[key]) if key in annotation else "?" for key in ("id", "image_id"))
    return f"annotation {own} of image {image}"


def short(value: Any) -> str:
    """`repr`, truncated to fit into a sentence."""
    return _SHORT.repr(value)


def preview(names: Sequence[str]) -> str:
    """The first LISTED names, then an ellipsis if there are more."""
    return "; ".join(names[:LISTED]) + ("; …" if len(names) > LISTED else "")


def _check_ids(entries: Sequence[Any], key: str, largest: int) -> None:
    seen = set()
    for entry in entries:
        number = entry.get("id") if isinstance(entry, dict) else None
        if type(number) is not int:
            raise ValueError(
                f"every entry of `{key}` needs an integer `id`, got {short(entry)}: number the entries, and use the "
                "numbers in the annotations"
            )
        if not 0 <= number <= largest:
            raise ValueError(f"id {short(number)} in `{key}` is not in 0..{largest}: number the entries from 0 or 1")
        if number in seen:
            raise ValueError(f"id {number} appears twice in `{key}`: give each entry an id of its own")
        seen.add(number)


def _without_count(entries: Sequence[Any], key: str) -> Iterator[Any]:
    """The entries whose `key` is not an id, see `is_count`."""
    try:
        values = [entry[key] for entry in entries]
    except (KeyError, TypeError):
        values = [entry.get(key) if isinstance(entry, dict) else None for entry in entries]
    if set(map(type, values)) <= {int} and (not values or 0 <= min(values) and max(values) <= MAX_EXACT_INT):
        return
    yield from (entry for entry, value in zip(entries, values, strict=True) if not is_count(value))


def _types_in(lists: Sequence[Sequence[Any]]) -> set[type]:
    return set(map(type, chain.from_iterable(lists)))


def _is_encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True
