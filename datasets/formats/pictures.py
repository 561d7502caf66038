"""The image files of a data set whose annotations lie in one file per image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets.annotations.headers import Size, read_header
from datasets.image_files import image_suffixes
from util.dist import is_main_process
from util.files import MAX_EXACT_INT
from util.logging import get_logger
from util.text import printable


def is_picture(name: str) -> bool:
    """Whether a file name ends as those of image files do."""
    return os.path.splitext(name)[1].lower() in image_suffixes()


def pictures_by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """Names of images by their part before the suffix; other files are left out."""
    found: dict[str, list[str]] = {}
    for name in names:
        if is_picture(name):
            found.setdefault(os.path.splitext(name)[0], []).append(name)
    return found


def common_folder(folders: Iterable[Path]) -> Path:
    """The folder that all of these are or lie in."""
    distinct = list(dict.fromkeys(folders))
    return distinct[0] if len(distinct) == 1 else Path(os.path.commonpath(distinct))


def image_entries(files: Sequence[Path], folder: Path) -> list[dict[str, Any]]:
    """COCO's `images` without sizes, in the order of the files.

    An id is the number that a file is named with, as in COCO (`000000000139.jpg`: 139), if all are named so and no two
    are equal. Otherwise the images are numbered from 1.
    """
    numbers = [_number_in(file.stem) for file in files]
    if None in numbers or len(set(numbers)) < len(numbers):
        numbers = list(range(1, len(files) + 1))
    return [
        {"id": number, "file_name": file.relative_to(folder).as_posix()}
        for number, file in zip(numbers, files, strict=True)
    ]


def settled_size(path: Path, annotated: Size | None, *, upright: bool = False) -> tuple[Size | None, bool]:
    """((w, h) in pixels for COCO's `images`, whether `annotated` is another size than the file's).

    Args:
        path: the image file. If it cannot be opened, the size is `annotated`: reading it will say what is wrong.
        annotated: the size that the annotation states, if it does. If it is that of the image turned upright as its
            EXIF orientation says, it stays: the image is then read upright.
        upright: without `annotated`, take the size of the upright image.
    """
    header = read_header(path)
    if header is None:
        return annotated, False
    if annotated in (header.size, header.upright_size):
        return annotated, False
    return (header.upright_size if upright else header.size), annotated is not None


def first_of(paths: Sequence[Path], root: Path) -> str:
    """How many these are and the first of them, for a message: "3 (a.xml, …)"."""
    first = paths[0].relative_to(root) if paths[0].is_relative_to(root) else paths[0]
    return f"{len(paths):,} ({printable(first)}{', …' if len(paths) > 1 else ''})"


def warn(source: Path, sentences: Iterable[str]) -> None:
    """Log what a user should know about annotations that were read."""
    if is_main_process():
        for sentence in sentences:
            get_logger().warning(f"{printable(source)}: {sentence}")


def _number_in(stem: str) -> int | None:
    if not (stem.isascii() and stem.isdigit() and len(stem) < 17):
        return None
    number = int(stem)
    return number if number <= MAX_EXACT_INT else None
