"""What a JSON file is, told from its beginning: files of a million annotations are not parsed to recognise them."""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path
from typing import Any

from datasets.annotations.relatives import translate
from datasets.annotations.rules import read_json
from util.text import printable

HEAD = 2**20  # bytes in which a file shows that it is COCO's
CHUNK = 2**22  # bytes that are looked through at a time for the names of images
NAMES = 20  # of images that are looked up
_IMAGES = re.compile(rb'"images"\s*:\s*\[')
_ANNOTATIONS = re.compile(rb'"annotations"\s*:\s*\[')
_BOX = re.compile(rb'"(bbox|image_id)"\s*:')
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


def is_instances_file(file: Path) -> bool:
    """Whether a JSON file has COCO's lists of images and annotations.

    So it is taken to be if it cannot be opened, or is damaged behind the beginning of a list of images: reading it then
    says what is wrong.
    """
    if file.exists() and not file.is_file():  # a pipe would be waited for
        return False
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD)
            is_whole = len(head) < HEAD
    except OSError:
        return True
    if not _is_plain(head):
        return not is_whole or _has_lists(file)
    images, annotations = _IMAGES.search(head), _ANNOTATIONS.search(head)
    if not is_whole:
        return bool(images) or bool(annotations and _BOX.search(head, annotations.end()))
    return bool(images) and (bool(annotations) or _is_damaged(head))


def names_of_images(file: Path) -> list[str]:
    """The first file names that a COCO file lists, up to `NAMES`; none if its images have none.

    Raises:
        OSError, ValueError: the file cannot be read.
    """
    try:
        found = _scan(file)
    except OSError as error:
        raise OSError(
            f"annotation file {printable(file)} cannot be read ({error.strerror}): check its permissions"
        ) from None
    if found:
        return [name for name in found if name]
    data: dict[str, Any] = read_json(file)
    translate(data)
    names = [image.get("file_name") for image in data["images"] if isinstance(image, dict)]
    return [name for name in names if isinstance(name, str) and name][:NAMES]


def _scan(file: Path) -> list[str]:
    """The first file names in the text of a file, at most `NAMES`."""
    found: list[str] = []
    if file.exists() and not file.is_file():
        return found  # reading it will say that it is a pipe
    with file.open("rb") as opened:
        rest = b""
        while len(found) < NAMES and (chunk := opened.read(CHUNK)):
            text = rest + chunk
            if not rest and not _is_plain(text):
                break
            end = 0
            for match in _FILE_NAME.finditer(text):
                end = match.end()
                found.append(_decoded(match[1]))
            rest = text[max(end, len(text) - 8192) :]
    return found[:NAMES]


def _is_damaged(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return True
    return False


def _has_lists(file: Path) -> bool:
    try:
        read_json(file)
    except (OSError, ValueError):
        return False
    return True


def _decoded(literal: bytes) -> str:
    try:
        return json.loads(literal.decode("utf-8"))
    except ValueError:
        return ""


def _is_plain(head: bytes) -> bool:
    """Whether the text is in UTF-8, with or without a byte order mark."""
    start = head.removeprefix(codecs.BOM_UTF8)
    return json.detect_encoding(start[:4]) == "utf-8"
