"""What a path holds that has not the expected files: another layout of COCO, another format, an archive."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from util.loading.file_kinds import START, advice_for, kind_of
from util.text import printable

DEPTH = 3  # folders below the given one
MOST_FILES = 5000
HEAD = 2**20  # bytes of a JSON file in which it shows that it is COCO's, and the name of an image
COCO_KEYS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
FILE_NAME = re.compile(rb'"file_name"\s*:\s*"([^"\\]+)"')
SPLITS = {"train": r"train", "val": r"val|test"}  # in the path of an annotation file; "valid" too
PASS_DATA = "pass the folder of the data set with --data, which reads this format"


def describe(path: Path, image_set: str) -> str:
    """What is at `path` and how to use it, as a clause for a message; empty if nothing is known.

    Args:
        path: the root of a data set, or what was given as an annotation file.
        image_set: "train" or "val", the split that is looked for.
    """
    if path.is_file():
        with path.open("rb") as file:
            kind = kind_of(file.read(START))
        return f"{printable(path)} is {kind}: {advice_for(kind)}" if kind else f"{printable(path)} is a file"
    if not path.is_dir():
        return ""
    files = list(_walk(path))
    annotated = [file for file in files if file.suffix == ".json" and _is_coco(file)]
    if annotated:
        return _flags(annotated, files, image_set)
    suffixes = Counter(file.suffix.lower() for file in files)
    if suffixes[".xml"]:
        found = f"{suffixes['.xml']} XML files, as in Pascal VOC"
        return f"{printable(path)} holds {found}: {PASS_DATA}"
    tables = [file for file in files if file.suffix == ".txt" and _is_yolo(file)]
    if tables or any(file.name in ("data.yaml", "dataset.yaml", "obj.data") for file in files):
        return f"{printable(path)} looks like YOLO's format: {PASS_DATA}"
    archives = [file for file in files if file.suffix in (".zip", ".tar", ".gz", ".tgz")]
    if archives:
        return f"{printable(path)} holds the archive {printable(archives[0].name)}: unpack it"
    return ""


def _flags(annotated: list[Path], files: list[Path], image_set: str) -> str:
    """The flags that read one of these COCO files."""

    def is_other(path: Path) -> bool:
        return not re.search(SPLITS[image_set], f"{path.parent.name}/{path.name}", re.IGNORECASE)

    file = min(annotated, key=is_other)
    folders = sorted({each.parent for each in files}, key=is_other)
    images = _images_of(file, [file.parent, *folders, file.parent.parent])
    flags = f"--{image_set}_ann {printable(file)} --{image_set}_images {printable(images) if images else 'FOLDER'}"
    other = "val" if image_set == "train" else "train"
    return (
        "there is a COCO file of another layout: pass the folder of the data set with --data instead, which recognises "
        f"it; or pass {flags}, and likewise --{other}_ann and --{other}_images"
    )


def _images_of(file: Path, folders: list[Path]) -> Path | None:
    """The first of the folders that the file names in an annotation file can be relative to."""
    found = FILE_NAME.search(_head(file))
    if not found:
        return None
    name = found[1].decode("utf-8", "replace")
    return next((folder for folder in folders if os.path.isfile(folder / name)), None)


def _is_coco(file: Path) -> bool:
    return COCO_KEYS.search(_head(file)) is not None


def _is_yolo(file: Path) -> bool:
    return kind_of(_head(file)[:START]) == "YOLO's text format"


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(HEAD)
    except OSError:
        return b""


def _walk(root: Path) -> Iterator[Path]:
    count = 0
    for path, folders, files in os.walk(root):
        folders.sort()
        if len(Path(path).relative_to(root).parts) >= DEPTH:
            folders.clear()
        for name in sorted(files):
            if count == MOST_FILES:
                return
            count += 1
            file = Path(path, name)
            if os.path.isfile(file):
                yield file
