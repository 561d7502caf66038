"""`--ann FILE`: the images of a COCO file, and their ids in it."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from datasets.annotations.rules import check_images
from prediction.folder_search import real_path
from prediction.image_list import list_images
from prediction.job_record import FOLDERS, holds_job
from util.loading.json_text import read_json
from util.logging import get_logger
from util.text import printable


def images_of(
    ann: Path, inputs: Sequence[str], leave_out: Sequence[Path] = ()
) -> tuple[dict[str, Path], dict[str, int]]:
    """The images of an annotation file among those that a command line names.

    A file belongs to the image whose `file_name` its path ends with. Files that belong to no image are left out, with a
    warning that counts them.

    Args:
        ann: a file with the list `images` of a COCO file; `annotations` and `categories` may be missing.
        inputs: see `list_images`. If there are none, the images are looked for beside the annotation file and in the
            folders around it.
        leave_out: see `list_images`.

    Returns:
        `file_name` → file, and `file_name` → image id, in the order of the annotation file.

    Raises:
        OSError: the annotation file cannot be read.
        ValueError: it has no usable images, none of them is found, or two files belong to the same image.
    """
    ids = _read_ids(ann)
    if not inputs:
        folder = _folder_of(ann, list(ids), set(map(real_path, leave_out)))
        return {name: folder / name for name in ids}, ids
    by_key = {_key(name): name for name in ids}
    found: dict[str, Path] = {}
    others: list[str] = []
    for name, file in list_images(inputs, leave_out).items():
        own = next((by_key[ending] for ending in _endings(file) if ending in by_key), None)
        if own is None:
            others.append(name)
        elif own in found:
            raise ValueError(f"{found[own]} and {file} both are image {own!r} of --ann {ann}: name the folder of one")
        else:
            found[own] = file
    if not found:
        raise ValueError(
            f"none of the {len(others)} images, such as {printable(others[0])}, is named in --ann {ann}, whose first "
            f"image is {printable(next(iter(ids)))}: pass another annotation file, or the folder of its images"
        )
    if others:
        _warn(f"left out: {_count(others)} not named in --ann {ann} ({printable(others[0])})")
    missing = [name for name in ids if name not in found]
    if missing:
        _warn(
            f"{len(missing)} of the {len(ids)} images in --ann {ann} are not among the inputs ({printable(missing[0])})"
        )
    return {name: found[name] for name in ids if name in found}, ids


def warn_of_other_names(ann: Path, names: Mapping[int, str]) -> None:
    """Warn if the annotation file gives a category id another name than the model does."""
    data = _read(ann)
    entries = data.get("categories") if isinstance(data.get("categories"), list) else []
    other = [
        (entry["id"], entry.get("name"))
        for entry in entries
        if isinstance(entry, dict) and type(entry.get("id")) is int and entry["id"] in names
        if str(entry.get("name")).strip().casefold() != names[entry["id"]].strip().casefold()
    ]
    if other:
        label, name = other[0]
        _warn(
            f"warning: category {label} is {printable(repr(names[label]), 80)} in the checkpoint, but "
            f"{printable(repr(name), 80)} in --ann {ann} ({len(other)} of {len(entries)} differ): category ids in the "
            "results are those of the checkpoint"
        )


def _read(ann: Path) -> dict[str, Any]:
    data = read_json(ann, "--ann", if_missing="check the path")
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise ValueError(f"--ann {ann} has no list `images`: pass an annotation file in the COCO format")
    return data


def _read_ids(ann: Path) -> dict[str, int]:
    images = _read(ann)["images"]
    if not images:
        raise ValueError(f"--ann {ann} lists no images: pass another file")
    try:
        check_images(images)
    except ValueError as error:
        raise ValueError(f"--ann {ann}: {error}") from None
    ids: dict[str, int] = {}
    seen: dict[str, int] = {}
    for image in images:
        name, number = image["file_name"], image["id"]
        if _key(name) in seen:
            raise ValueError(
                f"--ann {ann}: images {seen[_key(name)]} and {number} have the same file_name {printable(name)}: "
                "remove one"
            )
        seen[_key(name)] = ids[name] = number
    return ids


def _folder_of(ann: Path, names: Sequence[str], ignored: Collection[str]) -> Path:
    """The folder that the file names are relative to: beside the annotation file, or around it."""
    counts: dict[Path, int] = {}
    for base in (ann.absolute().parent, ann.absolute().parent.parent):
        for tier in ([base], _folders_in(base, ignored)):
            found = [folder for folder in tier if any(_exists(folder / name) for name in names[:20])]
            counts |= {folder: sum(_exists(folder / name) for name in names) for folder in found}
        if len(names) in counts.values():  # all of them: no need to look further away
            break
    best = [folder for folder in counts if counts[folder] == max(counts.values())]
    named = [folder for folder in best if folder.name and folder.name in ann.stem]
    if len(best) != 1 and len(named) != 1:
        where = "are not around it" if not best else f"may be those in {best[0]} or {best[1]}"
        raise ValueError(
            f"the images of --ann {ann}, such as {printable(names[0])}, {where}: name their folder as well, "
            f"predict.py CHECKPOINT FOLDER --ann {ann}"
        )
    return best[0] if len(best) == 1 else named[0]


def _folders_in(base: Path, ignored: Collection[str]) -> list[Path]:
    try:
        found = sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []
    is_job = holds_job(base)
    return [path for path in found if real_path(path) not in ignored and not (is_job and path.name in FOLDERS)]


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _key(name: str | PurePath) -> str:
    parts = str(name).replace("\\", "/").split("/")
    return unicodedata.normalize("NFC", "/".join(part for part in parts if part not in ("", ".")))


def _endings(file: Path) -> Iterable[str]:
    """All endings of a path, the longest first."""
    parts = _key(file).split("/")
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _count(names: Sequence[str]) -> str:
    return "1 image is" if len(names) == 1 else f"{len(names)} images are"


def _warn(text: str) -> None:
    get_logger().warning(text)
