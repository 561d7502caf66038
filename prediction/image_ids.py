"""`--ann FILE` and `--data FOLDER`: the images of a COCO file or of another data set, and their ids in it."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from datasets.annotations.relatives import translate
from datasets.annotations.rules import check_images
from datasets.formats.choose import part_named
from datasets.formats.find import find_data
from prediction.folder_search import real_path
from prediction.image_list import list_images
from prediction.job_record import FOLDERS, holds_job
from util.loading.json_text import read_json
from util.logging import get_logger
from util.text import printable


@dataclass(frozen=True)
class AnnotationFile:
    """What is needed of a COCO file, or of a part of another data set.

    Attributes:
        path: the file, or the folder of the annotations.
        ids: `file_name` → image id.
        categories: its categories as they are; empty if it has none.
        folder: that the file names are relative to; None if it is not known.
        flag: that named it.
    """

    path: Path
    ids: dict[str, int]
    categories: list[Any]
    folder: Path | None = None
    flag: str = "--ann"

    @classmethod
    def of_data(cls, folder: Path, part: str | None) -> AnnotationFile:
        """A part of a data set in any format.

        Args:
            folder: see `datasets.formats.find.find_data`.
            part: "train", "val" or "test"; None: val where there is one, else the only one.

        Raises:
            OSError, ValueError: the data set or the part cannot be used.
        """
        found = find_data(folder)
        chosen = part_named(found, part)
        data = chosen.read()
        translate(data, chosen.images)
        if not data["images"]:
            raise ValueError(f"--data {folder} lists no images in {chosen.source}: pass another folder or --part")
        ids = _ids_of(data["images"], chosen.source, "--data")
        categories = [] if found.ids_from_names else data["categories"]  # such ids differ without a meaning
        return cls(chosen.source, ids, categories, chosen.images, "--data")

    @classmethod
    def read(cls, path: Path) -> AnnotationFile:
        """Read a file with the list `images` of a COCO file; `annotations` and `categories` may be missing.

        Raises:
            OSError: it cannot be read.
            ValueError: it has no usable images.
        """
        data = read_json(path, "--ann", if_missing="check the path")
        images = data.get("images") if isinstance(data, dict) else None
        if not isinstance(images, list):
            raise ValueError(f"--ann {path} has no list `images`: pass an annotation file in the COCO format")
        if not images:
            raise ValueError(f"--ann {path} lists no images: pass another file")
        categories = data.get("categories")
        return cls(path, _ids_of(images, path), categories if isinstance(categories, list) else [])

    def warn_of_other_names(self, names: Mapping[int, str]) -> None:
        """Warn if a category id has another name in the file than in the model."""
        other = [
            (entry["id"], entry.get("name"))
            for entry in self.categories
            if isinstance(entry, dict) and type(entry.get("id")) is int and entry["id"] in names
            if str(entry.get("name")).strip().casefold() != names[entry["id"]].strip().casefold()
        ]
        if other:
            label, name = other[0]
            get_logger().warning(
                f"warning: category {label} is {printable(repr(names[label]), 80)} in the checkpoint, but "
                f"{printable(repr(name), 80)} in {self.flag} {self.path} ({len(other)} of {len(self.categories)} "
                "differ): category ids in the results are those of the checkpoint"
            )


def images_of(ann: AnnotationFile, inputs: Sequence[str], leave_out: Sequence[Path] = ()) -> dict[str, Path]:
    """The images of an annotation file among those that a command line names.

    A file belongs to the image whose `file_name` its path ends with. Files that belong to no image are left out, with a
    warning that counts them.

    Args:
        ann: the annotation file.
        inputs: see `list_images`. If there are none, the images are looked for beside the annotation file and in the
            folders around it, unless `ann` knows their folder.
        leave_out: see `list_images`.

    Returns:
        `file_name` → file, in the order of the annotation file.

    Raises:
        ValueError: none of the images is found, or two files belong to the same image.
    """
    if ann.folder:
        return {name: ann.folder / name for name in ann.ids}
    if not inputs:
        folder = _folder_of(ann.path, list(ann.ids), set(map(real_path, leave_out)))
        return {name: folder / name for name in ann.ids}
    by_key = {_key(name): name for name in ann.ids}
    found: dict[str, Path] = {}
    others: list[str] = []
    for name, file in list_images(inputs, leave_out).items():
        own = next((by_key[ending] for ending in _endings(file) if ending in by_key), None)
        if own is None:
            others.append(name)
        elif own in found:
            raise ValueError(
                f"{found[own]} and {file} both are image {printable(own)} of --ann {ann.path}: name the folder of one"
            )
        else:
            found[own] = file
    if not found:
        raise ValueError(
            f"none of the {len(others)} images, such as {printable(others[0])}, is named in --ann {ann.path}, whose "
            f"first image is {printable(next(iter(ann.ids)))}: pass another file, or the folder of its images"
        )
    if others:
        which = "1 image is" if len(others) == 1 else f"{len(others)} images are"
        get_logger().warning(f"left out: {which} not named in --ann {ann.path} ({printable(others[0])})")
    missing = [name for name in ann.ids if name not in found]
    if missing:
        which = f"{len(missing)} of the {len(ann.ids)} images in --ann {ann.path}"
        get_logger().warning(f"{which} are not among the inputs ({printable(missing[0])})")
    return {name: found[name] for name in ann.ids if name in found}


def _ids_of(images: Sequence[Any], path: Path, flag: str = "--ann") -> dict[str, int]:
    try:
        check_images(images)
    except ValueError as error:
        raise ValueError(f"{flag} {path}: {error}") from None
    ids: dict[str, int] = {}
    seen: dict[str, int] = {}
    for image in images:
        name, number = image["file_name"], image["id"]
        if _key(name) in seen:
            raise ValueError(
                f"{flag} {path}: images {seen[_key(name)]} and {number} have the same file_name {printable(name)}: "
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
