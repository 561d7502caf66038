"""Small data sets with rectangles of two classes, written as annotation tools export them in COCO's format."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIZE = 48, 36  # (w, h) of an image, pixels
COLORS = "red", "blue", "green"
NAMES = "ein Apfel", "plum #2", "桃"


def write_part(
    folder: Path,
    file: Path,
    ids: Sequence[int],
    first: int = 0,
    count: int = 3,
    names: Callable[[str], str] = str,
    suffix: str = ".png",
) -> list[str]:
    """Write `count` images to `folder` and their annotations to `file`.

    Args:
        ids: category ids.
        first: the number of the first image, which is its id too.
        names: file name → name that the annotation file lists.

    Returns:
        The names of the image files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    written, images, annotations = [], [], []
    for number in range(first, first + count):
        rng = np.random.RandomState(number)
        image = Image.new("RGB", SIZE, "white")
        name = f"cell {number:03}{suffix}"
        for place, label in enumerate(ids[: len(COLORS)]):
            x, y = (int(value) for value in rng.randint(1, (24, 18)))
            w, h = (int(value) for value in rng.randint(8, 15, 2))
            ImageDraw.Draw(image).rectangle([x, y, x + w - 1, y + h - 1], fill=COLORS[place])
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": label,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        image.save(folder / name)
        written.append(name)
        images.append({"id": number, "file_name": names(name), "width": SIZE[0], "height": SIZE[1]})
    categories = [{"id": label, "name": NAMES[place], "supercategory": ""} for place, label in enumerate(ids)]
    content: dict[str, Any] = {"images": images, "categories": categories, "annotations": annotations, "info": {}}
    file.write_text(json.dumps(content), encoding="utf-8")
    return written


def published(root: Path, ids: Sequence[int], first: int = 0) -> Path:
    for start, part in ((first, "train"), (first + 3, "val")):
        write_part(root / f"{part}2017", root / f"annotations/instances_{part}2017.json", ids, start)
    return root


def roboflow(root: Path, ids: Sequence[int], first: int = 0) -> Path:
    for start, part in ((first, "train"), (first + 3, "valid"), (first + 6, "test")):
        write_part(root / part, root / part / "_annotations.coco.json", ids, start)
    return root


def cvat(root: Path, ids: Sequence[int], first: int = 0) -> Path:
    write_part(root / "images", root / "annotations/instances_default.json", ids, first, 6)
    return root


def cvat_default(root: Path, ids: Sequence[int], first: int = 0) -> Path:
    write_part(root / "images/default", root / "annotations/instances_default.json", ids, first, 6)
    return root


def cvat_subsets(root: Path, ids: Sequence[int], first: int = 0) -> Path:
    for start, part in ((first, "Train"), (first + 3, "Validation")):
        write_part(root / "images" / part, root / f"annotations/instances_{part}.json", ids, start)
    return root


def label_studio(root: Path, ids: Sequence[int], first: int = 0) -> Path:
    write_part(root / "images", root / "result.json", ids, first, 6, lambda name: f"images/{name}")
    return root


def label_studio_windows(root: Path, ids: Sequence[int], first: int = 0) -> Path:
    write_part(root / "images", root / "result.json", ids, first, 6, lambda name: f"images\\{name}")
    return root


def label_studio_server(root: Path, ids: Sequence[int], first: int = 0) -> Path:
    write_part(root / "images", root / "result.json", ids, first, 6, lambda name: f"/data/upload/7/{name}")
    return root


def label_studio_local(root: Path, ids: Sequence[int], first: int = 0) -> Path:
    def address(name: str) -> str:
        return "/data/local-files/?d=cells/" + name.replace(" ", "%20")

    write_part(root / "images", root / "result.json", ids, first, 6, address)
    return root


def beside(root: Path, ids: Sequence[int], first: int = 0) -> Path:
    write_part(root / "Fotos März", root / "labels.json", ids, first, 6)
    return root


def inside(root: Path, ids: Sequence[int], first: int = 0) -> Path:
    write_part(root, root / "labels.json", ids, first, 6)
    return root


def two_files(root: Path, ids: Sequence[int], first: int = 0) -> Path:
    """Both parts' images in one folder, and a file for each part."""
    for start, part in ((first, "train"), (first + 3, "val")):
        write_part(root / "images", root / f"{part}.json", ids, start)
    return root


DIVIDED = published, roboflow, cvat_subsets, two_files
UNDIVIDED = (
    cvat,
    cvat_default,
    label_studio,
    label_studio_windows,
    label_studio_server,
    label_studio_local,
    beside,
    inside,
)
LAYOUTS = DIVIDED + UNDIVIDED
