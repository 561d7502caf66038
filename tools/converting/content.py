"""What a converted data set holds: its parts in COCO's form, checked, with the files of their images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from datasets.annotations.file_names import hint_at
from datasets.annotations.headers import annotated_size
from datasets.annotations.instances import read_coco
from datasets.formats.find import find_data
from datasets.formats.part import FoundData
from datasets.formats.pictures import is_picture, settled_size
from datasets.formats.voc.options import VocOptions
from util.text import printable

DEEPEST = 2  # folders of an image's name that stay folders where formats are told from folders


@dataclass
class Picture:
    """One image.

    Attributes:
        entry: of COCO's `images`; it has a size.
        file: where the image lies.
        name: the name it gets, with the folders that the file name names, never outside the folder of the images.
        annotations: of COCO's `annotations`, checked.
    """

    entry: dict[str, Any]
    file: Path
    name: PurePosixPath
    annotations: list[dict[str, Any]]

    @property
    def size(self) -> tuple[int, int]:
        """(w, h) in pixels, as annotated."""
        return self.entry["width"], self.entry["height"]


@dataclass
class Content:
    """One part: the whole COCO data, and its images in the order of the file."""

    coco: dict[str, Any]
    pictures: list[Picture]


def read_content(folder: Path, voc: VocOptions) -> tuple[FoundData, dict[str, Content]]:
    """All parts of a data set of any format that can be used.

    Raises:
        OSError, ValueError: it is not recognised, cannot be read, lacks an image, or two parts have other classes.
    """
    found = find_data(folder, voc)
    parts = {}
    for name, part in found.parts.items():
        coco, _ = read_coco(part.source, part.images, read=part.read)
        parts[name] = _content(coco.dataset, coco.imgToAnns, part.images, part.source)
    classes = {name: [(c["id"], c["name"]) for c in each.coco["categories"]] for name, each in parts.items()}
    first = next(iter(classes))
    other = next((name for name, each in classes.items() if each != classes[first]), None)
    if other:
        raise ValueError(
            f"the parts {first} and {other} of {printable(folder)} have other classes: give both the same `categories`"
        )
    return found, parts


def _content(data: dict[str, Any], of_image: dict[int, list[dict[str, Any]]], images: Path, source: Path) -> Content:
    pictures, missing = [], []
    for entry in data["images"]:
        file = images / entry["file_name"]
        if not os.path.isfile(file):
            missing.append(entry["file_name"])
            continue
        size, _ = settled_size(file, None) if annotated_size(entry) is None else (annotated_size(entry), False)
        if size is None:
            raise ValueError(
                f"{printable(source)} states no size of the image {printable(file)}, and the file cannot be opened: "
                "replace it, or remove it"
            )
        entry["width"], entry["height"] = size
        pictures.append(Picture(entry, file, _safe_name(entry["file_name"]), of_image.get(entry["id"], [])))
    if missing:
        raise FileNotFoundError(
            f"{len(missing):,} of the {len(data['images']):,} images in {printable(source)} are not in "
            f"{printable(images)} (such as {printable(missing[0])}); {hint_at(images, missing)}. Bring "
            "the files, or remove their entries"
        )
    return Content(data, pictures)


def _safe_name(name: str) -> PurePosixPath:
    """A file name below the folder of the images: an absolute one, or one that leaves it, loses its folders."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        return PurePosixPath(PureWindowsPath(name).name)
    return path


def keypoints_left_out(parts: dict[str, Content]) -> list[str]:
    """The sentence of a format that holds no keypoints; none if there are none."""
    annotations = (a for content in parts.values() for picture in content.pictures for a in picture.annotations)
    count = sum(bool(annotation.get("keypoints")) for annotation in annotations)
    return [f"the keypoints of {count:,} objects are left out: boxes are written"] if count else []


def check_names(parts: dict[str, Sequence[Picture]], *, by_stem: bool) -> None:
    """Refuse images that would get one name or, with `by_stem`, share the annotation file that is named after them.

    With `by_stem`, names without the suffix of an image, or that begin with a point, are refused too: they would not be
    found again. Folders of which more than `DEEPEST` lie in each other become a part of the file's name.
    """
    for pictures in parts.values():
        owners: dict[str, Picture] = {}
        for picture in pictures:
            if by_stem:
                if not is_picture(picture.name.name) or any(part.startswith(".") for part in picture.name.parts):
                    raise ValueError(
                        f"the name of the image {printable(picture.file)} begins with a point or ends without the "
                        "suffix of an image, so that it would not be found again: rename it, in the annotations too"
                    )
                above, rest = picture.name.parts[:DEEPEST], picture.name.parts[DEEPEST:]
                picture.name = PurePosixPath(*above, *(["_".join(rest)] if rest else []))
            key = str(picture.name.with_suffix("")) if by_stem else str(picture.name)
            other = owners.setdefault(key, picture)
            if other is not picture and (by_stem or other.file != picture.file):
                shared = "annotation file" if by_stem else "name"
                raise ValueError(
                    f"the images {printable(other.file)} and {printable(picture.file)} would share one {shared}: "
                    "rename one, in the annotations too"
                )
