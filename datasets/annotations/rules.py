"""What a COCO instances file must look like: it is read here, and refused by name where it cannot be used.

Refused is what would go wrong later or mean something else than it says: ids that are no whole numbers or stand twice,
keys that stand twice, boxes of other things than numbers. What training does not read may be anything.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from util.files import MAX_EXACT_INT, is_count, is_number

Annotation = dict[str, Any]

NAMED = 3  # how many culprits a summary names
LARGEST_CATEGORY_ID = 99_999  # the class head has a row for every id up to the largest
LARGEST_AREA = 1e10  # pixels; COCO's evaluation leaves out what is larger
LARGEST_NUMBER = 2**31 - 1  # of pixels in a side, and either way in a box

_SHORT = reprlib.Repr()
_SHORT.maxdict, _SHORT.maxlist, _SHORT.maxlong, _SHORT.maxstring, _SHORT.maxother = 8, 8, 30, 60, 60


def read_json(path: Path, kind: str = "instances") -> dict[str, Any]:
    """The content of a COCO file, of any of JSON's encodings: an object that has its three lists.

    `kind` is what the messages call its format.

    Raises:
        FileNotFoundError, OSError: the file is not there or cannot be read.
        ValueError: not JSON, a key twice in one object, or not in COCO's format.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"annotation file {path} does not exist: check --coco_path, --train_ann and --val_ann"
        ) from None
    except IsADirectoryError:
        raise ValueError(f"annotation file {path} is a folder: name the file in it") from None
    except OSError as error:
        raise OSError(f"annotation file {path} cannot be read ({error.strerror}): check its permissions") from None
    if not content:
        raise ValueError(f"annotation file {path} is empty, as if its writing or copying was cut off: copy it anew")
    try:
        data = json.loads(content, object_pairs_hook=_unique_keys)
    except _RepeatedKey as error:
        raise ValueError(f"annotation file {path} has the key {error} twice in one object: remove one") from None
    except RecursionError:
        raise ValueError(f"annotation file {path} is nested too deeply to be in the COCO {kind} format") from None
    except ValueError as error:
        raise ValueError(f"annotation file {path} is not JSON ({error}): is it cut short, or something else?") from None
    if not isinstance(data, dict):
        raise ValueError(
            f"annotation file {path} holds a JSON {type(data).__name__}, but a COCO {kind} file holds an object"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise ValueError(f"annotation file {path} has no list `{key}`, so it is not in the COCO {kind} format")
    return data


def check_images(images: Sequence[Any]) -> None:
    """Refuse images without an id of their own, a usable file name, or with a size that is none (0: not known).

    A file name may hold folders, lead out of the image folder or be absolute: it is only ever read, as an image.
    """
    _check_ids(images, "images", MAX_EXACT_INT)
    for image in images:
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"image {image['id']} has no file_name")
        if "\0" in name or not _is_encodable(name):
            raise ValueError(f"image {image['id']} has file_name {short(name)}, which no file can have")
        for side in ("width", "height"):
            value = image.get(side)
            if value is None:
                continue
            if not is_number(value) or not 0 <= value <= LARGEST_NUMBER or value != int(value):
                raise ValueError(
                    f"image {image['id']} has {side} {short(value)}, which is no number of pixels: correct it, or "
                    "leave it out to have it read from the image"
                )


def check_categories(categories: Sequence[Any]) -> None:
    """Refuse categories without an id of their own that a class head can have a row for."""
    _check_ids(categories, "categories", LARGEST_CATEGORY_ID)


def check_annotations(annotations: Sequence[Any], image_ids: set[int], category_ids: set[int]) -> np.ndarray:
    """Refuse annotations whose ids, box or crowd flag cannot be used.

    Returns:
        Their boxes, see `box_array`.
    """
    seen = set()
    for annotation in annotations:
        for key in ("id", "image_id", "category_id"):
            number = annotation.get(key) if isinstance(annotation, dict) else None
            if not is_count(number):
                raise ValueError(
                    f"every annotation needs a whole number as {key}, 0 to {MAX_EXACT_INT}, got {short(annotation)}"
                )
        if annotation["category_id"] not in category_ids:
            raise ValueError(
                f"{name_of(annotation)} has category_id {annotation['category_id']}, which `categories` does not list: "
                "add the category or correct the annotation"
            )
        if annotation["id"] in seen:  # pycocotools would take one for the other
            raise ValueError(f"annotation id {annotation['id']} stands twice: ids must be different")
        seen.add(annotation["id"])
        crowd = annotation.get("iscrowd")
        if crowd is not None and crowd not in (0, 1):
            raise ValueError(f"{name_of(annotation)} has iscrowd {short(crowd)}: 0 is one object, 1 a crowd of them")
    if annotations and not any(annotation["image_id"] in image_ids for annotation in annotations):
        raise ValueError(
            f"none of the {len(annotations)} annotations belongs to a listed image ({name_of(annotations[0])}): "
            "their image_id must be an id under `images`"
        )
    return box_array(annotations)


def box_array(annotations: Sequence[Annotation]) -> np.ndarray:
    """The annotations' boxes as they stand, float64 [N, 4] (xywh, pixels); ValueError names those that are none."""
    for annotation in annotations:
        box = annotation.get("bbox")
        if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)):
            raise ValueError(
                f"{name_of(annotation)} needs a bbox of four numbers [x, y, width, height], got {short(box)}"
            )
    wild = [a for a in annotations if not all(-LARGEST_NUMBER <= value <= LARGEST_NUMBER for value in a["bbox"])]
    if wild:
        named = some([f"{name_of(annotation)}: {short(annotation['bbox'])}" for annotation in wild])
        raise ValueError(
            f"NaN, infinity or numbers beyond any image in {len(wild)} of {len(annotations)} boxes ({named}): "
            "correct or remove them"
        )
    return np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64).reshape(-1, 4)


def name_of(annotation: Annotation) -> str:
    """How a message calls an annotation."""
    own, image = (short(annotation[key]) if key in annotation else "?" for key in ("id", "image_id"))
    return f"annotation {own} of image {image}"


def short(value: Any) -> str:
    """`repr`, cut to what fits into a sentence."""
    return _SHORT.repr(value)


def some(names: Sequence[str]) -> str:
    """The first few, and a sign that there are more."""
    return "; ".join(names[:NAMED]) + ("; …" if len(names) > NAMED else "")


def _check_ids(entries: Sequence[Any], key: str, largest: int) -> None:
    seen = set()
    for entry in entries:
        number = entry.get("id") if isinstance(entry, dict) else None
        if type(number) is not int:
            raise ValueError(f"every entry of `{key}` needs a whole number as id, got {short(entry)}")
        if not 0 <= number <= largest:
            raise ValueError(f"id {short(number)} in `{key}` is not in 0..{largest}: number them from 0 or 1")
        if number in seen:
            raise ValueError(f"id {number} stands twice in `{key}`: ids must be different")
        seen.add(number)


class _RepeatedKey(ValueError):
    pass


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # JSON's reader keeps the last of equal keys: two lists `images`, say by a merge gone wrong, would lose one.
    entries = dict(pairs)
    if len(entries) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKey(short(next(key for key in keys if keys.count(key) > 1)))
    return entries


def _is_encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True
