"""What a recipe needs to know about the data: how many pictures, classes and objects, and how large the objects are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets.coco import CocoDetection
from datasets.same_size import picture_sizes

PERCENTS = (1, 5, 10, 25, 50, 75, 90, 95, 99)


@dataclass(frozen=True)
class DataFacts:
    """A data set in numbers. Crowd regions and boxes without area do not count as objects.

    Attributes:
        pictures: number of pictures, those without objects included.
        classes: number of classes that have an object.
        objects: number of objects.
        most_objects: the largest number of objects in one picture.
        box_sides: percent → that percentile of the square root of a box's area, as a fraction of the short side of its
            picture; empty without objects or if no picture has a known size.
        short_sides: percent → that percentile of the pictures' short sides, pixels; empty if none is known.
        elongation: 95th percentile of long side over short side of the pictures; 1 if none is known.
    """

    pictures: int
    classes: int
    objects: int
    most_objects: int
    box_sides: Mapping[int, float]
    short_sides: Mapping[int, float]
    elongation: float


def facts_of(dataset: CocoDetection) -> DataFacts:
    """The facts of a built data set; a picture's size is read from its file where the annotations lack it."""
    rows = dataset.annotation_rows()  # float64 [N, 8]: id, image_id, category_id, iscrowd, xywh
    return _facts(dataset.ids, picture_sizes(dataset), rows[:, 1:])


def facts_of_part(coco: Mapping[str, Any]) -> DataFacts:
    """The facts of annotations in COCO's form, as `datasets.formats.part.Part.read` returns them."""
    images = coco["images"]
    rows = [(a["image_id"], a["category_id"], a.get("iscrowd") or 0, *a["bbox"]) for a in coco["annotations"]]
    sizes = [(image.get("width") or 0, image.get("height") or 0) for image in images]
    known = [size if all(side > 0 for side in size) else None for size in sizes]
    return _facts([image["id"] for image in images], known, np.array(rows, dtype=np.float64).reshape(-1, 7))


def _facts(ids: Sequence[int], sizes: Sequence[tuple[int, int] | None], rows: np.ndarray) -> DataFacts:
    """From image ids, (w, h) of each image, and rows of [N, 7]: image_id, category_id, iscrowd, xywh in pixels."""
    rows = rows[(rows[:, 2] == 0) & (rows[:, 5:] > 0).all(axis=1) & np.isin(rows[:, 0], ids)]
    counts = np.unique(rows[:, 0], return_counts=True)[1]
    short = {image_id: min(size) for image_id, size in zip(ids, sizes) if size}
    measured = np.array([row[0] in short for row in rows], dtype=bool)
    shorts = np.array([short[image_id] for image_id in rows[measured, 0]])
    sides = np.sqrt(rows[measured, 5] * rows[measured, 6]) / shorts if measured.any() else np.empty(0)
    return DataFacts(
        pictures=len(ids),
        classes=len(np.unique(rows[:, 1])),
        objects=len(rows),
        most_objects=int(counts.max(initial=0)),
        box_sides=_percentiles(sides),
        short_sides=_percentiles(np.array(list(short.values()), dtype=np.float64)),
        elongation=float(np.percentile([max(size) / min(size) for size in sizes if size] or [1.0], 95)),
    )


def _percentiles(values: np.ndarray) -> dict[int, float]:
    return dict(zip(PERCENTS, np.percentile(values, PERCENTS).tolist())) if len(values) else {}
