"""Entries of COCO's relatives, and of tools that write them slightly differently, in COCO's own form.

Nothing is guessed: text of digits and whole decimals become integers, and text in boxes becomes numbers; an image
without `file_name` takes the name that another key states; annotation ids that cannot be used are numbered anew because
nothing refers to them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from datasets.annotations.rules import name_of
from util.files import is_count

NAME_KEYS = ("coco_url", "filename", "filepath", "path", "image_name", "url", "flickr_url")
CROWDS = {"0": 0, "1": 1, "false": 0, "true": 1}
NUMBER = re.compile(r"\s*[+-]?[0-9]{1,20}(\.[0-9]{0,40})?(e[+-]?[0-9]{1,3})?\s*", re.IGNORECASE)
LVIS_KEYS = frozenset(("neg_category_ids", "not_exhaustive_category_ids"))


def translate(data: dict[str, Any], img_folder: str | Path | None = None) -> list[str]:
    """Rewrite `images`, `annotations` and `categories` in place where they say the same in another form.

    Args:
        data: as from `rules.read_json`; its entries are not checked yet, and what cannot be translated is left to the
            checks.
        img_folder: the folder of the images, if known: it decides how much of a URL is the file's name.

    Returns:
        What was translated, one part of a sentence each.
    """
    images, annotations, categories = data["images"], data["annotations"], data["categories"]
    if not all(set(map(type, entries)) <= {dict} for entries in (images, annotations, categories)):
        return []
    notes = _translate_ids(data, ("id", "image_id", "category_id"))
    crowds = [annotation for annotation in annotations if isinstance(annotation.get("iscrowd"), str)]
    crowds = [annotation for annotation in crowds if annotation["iscrowd"].strip().lower() in CROWDS]
    for annotation in crowds:
        annotation["iscrowd"] = CROWDS[annotation["iscrowd"].strip().lower()]
    if crowds:
        notes.append(f"{len(crowds)} iscrowd written as text are read as 0 or 1")
    boxes = sum(map(_to_numbers, annotations))
    if boxes:
        notes.append(f"{boxes} bbox written as text are read as numbers")
    notes += _name_files(images, Path(img_folder) if img_folder else None)
    if any(not LVIS_KEYS.isdisjoint(image) for image in images):
        notes.append(
            "neg_category_ids and not_exhaustive_category_ids are not used: AP is COCO's, not LVIS's, and counts "
            "detections of classes that an image was not searched for"
        )
    renumbered = _number_annotations(annotations)
    if renumbered:
        notes.append(renumbered)
    return notes


def translate_panoptic(data: dict[str, Any], img_folder: str | Path | None = None) -> list[str]:
    """`translate` for a panoptic file, whose annotations have no ids and name their PNG files."""
    images, annotations, categories = data["images"], data["annotations"], data["categories"]
    if not all(set(map(type, entries)) <= {dict} for entries in (images, annotations, categories)):
        return []
    return _translate_ids(data, ("image_id",)) + _name_files(images, Path(img_folder) if img_folder else None)


def _translate_ids(data: dict[str, Any], keys: Sequence[str]) -> list[str]:
    """Convert ids and sizes to integers, of annotations those under `keys`."""
    numbers = sum(_to_integers(data["images"], key) for key in ("id", "width", "height"))
    numbers += sum(_to_integers(data["annotations"], key) for key in keys)
    numbers += _to_integers(data["categories"], "id")
    return [f"{numbers} ids or sizes written as text or decimals are read as integers"] if numbers else []


def _to_integers(entries: Sequence[dict[str, Any]], key: str) -> int:
    """Convert the text of digits and the whole decimals under `key` to int; returns how many there were."""
    if set(map(type, [entry.get(key) for entry in entries])) <= {int}:
        return 0
    converted = 0
    for entry in entries:
        value = entry.get(key)
        if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 20:
            entry[key] = int(value)
        elif isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            entry[key] = int(value)
        else:
            continue
        converted += 1
    return converted


def _to_numbers(annotation: dict[str, Any]) -> bool:
    """Convert a `bbox` of texts to numbers; returns whether it was one. Text that is no number leaves it as it is."""
    box = annotation.get("bbox")
    if not isinstance(box, list) or str not in map(type, box):
        return False
    if not all(NUMBER.fullmatch(value) for value in box if isinstance(value, str)):
        return False
    annotation["bbox"] = [float(value) if isinstance(value, str) else value for value in box]
    return True


def _name_files(images: Sequence[dict[str, Any]], folder: Path | None) -> list[str]:
    """Fill in missing `file_name`s, with a note about the keys that they come from."""
    sources: list[str] = []
    for image in images:
        if image.get("file_name"):
            continue
        for key in NAME_KEYS:
            value = image.get(key)
            if isinstance(value, str) and value.strip():
                image["file_name"] = _name_in(value.strip(), key, folder)
                sources.append(key)
                break
    count = f"{len(sources)} image{' has' if len(sources) == 1 else 's have'} no file_name"
    return [f"{count}: it is taken from {', '.join(sorted(set(sources)))}"] if sources else []


def _name_in(value: str, key: str, folder: Path | None) -> str:
    """The file name in a URL or a path. LVIS takes images from two folders of COCO's, which the URL names."""
    if not key.endswith("url"):
        return value
    try:
        path = PurePosixPath(unquote(urlsplit(value).path))
    except ValueError:  # brackets that enclose no IPv6 address
        return value
    inner = path.parent.name
    return f"{inner}/{path.name}" if inner and folder and os.path.isdir(folder / inner) else path.name


def _number_annotations(annotations: Sequence[dict[str, Any]]) -> str:
    """Number annotations 1, 2, … if an id is missing, no id, or appears twice; returns what was wrong, or nothing."""
    ids = [annotation.get("id") for annotation in annotations]
    if set(map(type, ids)) <= {int} and len(set(ids)) == len(ids) and (not ids or min(ids) >= 0):
        if all(map(is_count, ids)):
            return ""
    seen: set[int] = set()
    for annotation, number in zip(annotations, ids, strict=True):
        fault = "is not an integer from 0" if not is_count(number) else "appears twice" if number in seen else ""
        if fault:
            fault = f"has no id of its own ({name_of(annotation)})" if number is None else f"{fault} ({number!r:.60})"
            break
        seen.add(number)
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    what = "an annotation" if fault.startswith("has") else "an annotation's id"
    return f"{what} {fault}: the annotations are numbered anew, 1 to {len(annotations)}"
