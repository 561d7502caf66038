"""A small clean data set in COCO's layout, in which a test plants one fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tools.checking.data_set import Checked, check
from tools.checking.model import ModelFacts

SIZE = (64, 48)  # (w, h) of a picture
COUNTS = {"train": 8, "val": 4}
FACTS = ModelFacts(train_size=480, val_size=480, max_size=640, num_queries=20, max_dets=100, max_pixels=10**6)
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 5, "name": "traffic light"}]
Content = dict[str, Any]


class Planted:
    """The data set's files, as they are to be written.

    Attributes:
        folder: of the data set.
        train, val: the content of the annotation files.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.contents: dict[str, Content] = {}
        for number, (part, count) in enumerate(COUNTS.items()):
            (folder / f"{part}2017").mkdir(parents=True)
            images, annotations = [], []
            for index in range(count):
                seed = 100 * number + index + 1
                name = f"{part}_{chr(97 + index)}.png"
                noise_picture(seed).save(folder / f"{part}2017" / name)
                images.append({"id": seed, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
                for category, x in ((1, 4), (5, 34)):
                    box = [x + index % 3, 6 + index % 5, 14 + index % 4, 20 + index % 6]
                    annotations.append(annotation(len(annotations) + 1, seed, category, box))
            self.contents[part] = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        self.contents = json.loads(json.dumps(self.contents))  # no entry is shared

    @property
    def train(self) -> Content:
        return self.contents["train"]

    @property
    def val(self) -> Content:
        return self.contents["val"]

    def remove(self, part: str) -> None:
        """Remove a part with its pictures."""
        del self.contents[part]
        shutil.rmtree(self.folder / f"{part}2017")

    def picture(self, index: int = 0, part: str = "train") -> Path:
        """The file of a picture."""
        return self.folder / f"{part}2017" / self.contents[part]["images"][index]["file_name"]

    def write(self) -> Path:
        """Write the annotation files; returns the folder."""
        (self.folder / "annotations").mkdir(exist_ok=True)
        for part, content in self.contents.items():
            (self.folder / f"annotations/instances_{part}2017.json").write_text(json.dumps(content))
        return self.folder

    def check(self, facts: ModelFacts = FACTS) -> Checked:
        """Write, and check in this process."""
        return check(self.write(), facts, 0)


Plant = Callable[[Planted], Any]


def noise_picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture of large random patches, unlike that of any other seed."""
    patches = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def annotation(number: int, image: int, category: int, box: list[float], **more: Any) -> Content:
    """A complete annotation with the outline of its box."""
    x, y, w, h = box
    outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    complete = {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": w * h, "iscrowd": 0}
    return complete | {"segmentation": outline} | more
