"""Random data sets in COCO's layout, with what formats could lose: odd names, ids with gaps, boxes of many digits."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from datasets.annotations.instances import read_coco
from datasets.formats import find_data
from datasets.formats.voc.options import VocOptions
from tests.helpers.layouts.voc_layouts import write_picture

FILE_NAMES = (
    "a.png",
    "猫 #2 = 50%.jpg",
    "x.rf.0a1b.jpg",
    "sub/a.png",
    "labels.png",
    "in/ner/a\\b.png",
    'it\'s "so".png',
    "back\\slash.png",
    "ünï cö.png",
)
CLASSES = ("cat", "no", "007", " a: b ", "<&>'\"", "猫 #2", "tab\tand\nline", "{}", "null", "Ω=50%")


def number(rng: random.Random, most: float) -> float:
    """A coordinate: whole, rounded, or with all digits of a float."""
    value = rng.random() * most
    return rng.choice((float(int(value)), int(value), round(value, 2), round(value, 6), value))


def box(rng: random.Random, size: tuple[int, int]) -> list[float]:
    """A box inside of an image."""
    while True:
        x, y = number(rng, size[0] - 1), number(rng, size[1] - 1)
        w, h = number(rng, size[0] - x), number(rng, size[1] - y)
        if w > 0 and h > 0:
            return [x, y, w, h]


def write_random(root: Path, seed: int, polygons: bool = False) -> Path:
    """Write train and val, of images that may have no object."""
    rng = random.Random(seed)
    ids = rng.sample(range(100), 4)
    categories = [{"id": key, "name": name} for key, name in zip(ids, rng.sample(CLASSES, 4), strict=True)]
    for part in ("train", "val"):
        images, annotations = [], []
        for name in rng.sample(FILE_NAMES, 4):
            size = rng.randint(2, 70), rng.randint(2, 70)
            write_picture(root / f"{part}2017" / name, size)
            images.append({"id": len(images) + 5, "file_name": name, "width": size[0], "height": size[1]})
            for _ in range(rng.randrange(4)):
                x, y, w, h = box(rng, size)
                own = {"id": len(annotations), "image_id": images[-1]["id"], "category_id": rng.choice(ids)}
                annotations.append(own | {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
                if polygons:
                    annotations[-1]["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
        content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        path = root / "annotations" / f"instances_{part}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return root


def facts(folder: Path) -> dict[str, Any]:
    """What a data set says: of each image of each part the size and the objects, and the classes."""
    said = {}
    for name, part in find_data(folder, VocOptions()).parts.items():
        coco, _ = read_coco(part.source, part.images, read=part.read, report=False)
        names = {category["id"]: category["name"] for category in coco.dataset["categories"]}
        said[name] = {
            image["file_name"]: (
                (image["width"], image["height"]),
                [
                    (a["category_id"], names[a["category_id"]], a["bbox"], a["iscrowd"], a.get("segmentation"))
                    for a in coco.imgToAnns[image["id"]]
                ],
            )
            for image in coco.dataset["images"]
        } | {"classes": names}
    return said
