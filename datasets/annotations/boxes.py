"""The boxes of an annotation file: which are clamped or dropped, and which are probably not what COCO's format means.

`N` annotations of a file, `boxes` float64 [N, 4] (xywh, pixels).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotations.headers import is_turned
from datasets.annotations.rules import Annotation, name_of, preview, short
from util.files import is_number

ROUNDING = 0.05  # pixels; coordinates rounded to two decimals exceed the image by about 0.01
FRACTIONS = 0.1  # share of boxes within 0..1 pixels from which they look like fractions; real ones are larger
# Corners read as sizes reach far beyond their image, and all fit into it when read as corners. Real sizes hardly ever
# do: a box wider than its x and higher than its y must be near the upper left, where nothing reaches beyond the image.
FAR, FAR_PIXELS = 0.02, 1.5  # of the side, and at least; a box around the whole image may reach past it by a pixel
CORNERS_REFUSED = 0.5  # share of boxes that reach far beyond
CORNERS_COUNT = 4  # and their number: fewer can be chance
CORNERS_NAMED = 0.1
LOOKED_UP = 100  # boxes whose image files are opened, to tell corners from boxes on turned images
ROTATIONS = frozenset(("rotation", "angle", "rotation_angle", "theta"))
ROTATED_BOXES = frozenset(("rbox", "rbbox", "obb", "rotated_bbox", "rotated_box", "bbox_rotated"))


@dataclass
class Boxes:
    """The boxes of a file beside the images that they belong to."""

    annotations: Sequence[Annotation]
    boxes: np.ndarray  # float64 [N, 4], xywh in pixels
    limits: np.ndarray  # float64 [N, 2], (w, h) of the image in pixels; infinite if unknown
    is_orphan: np.ndarray  # bool [N], of an image that is not listed
    files: Mapping[int, str]  # image id → file name
    folder: Path | None = None  # of the images, if known

    @classmethod
    def of(
        cls,
        annotations: Sequence[Annotation],
        boxes: np.ndarray,
        images: Sequence[Mapping[str, Any]],
        folder: Path | None = None,
    ) -> Boxes:
        ids = np.array([image["id"] for image in images], dtype=np.int64)
        sizes = [(image.get("width") or math.inf, image.get("height") or math.inf) for image in images]
        sizes = np.array([*sizes, (math.inf, math.inf)], dtype=np.float64)  # [images + 1, wh]; the last for orphans
        wanted = np.array([annotation["image_id"] for annotation in annotations], dtype=np.int64)  # [N]
        order = np.argsort(ids, kind="stable")
        place = np.searchsorted(ids, wanted, sorter=order)
        rows = order[np.minimum(place, len(ids) - 1)] if len(ids) else np.zeros(len(wanted), dtype=np.int64)
        is_orphan = ids[rows] != wanted if len(ids) else np.ones(len(wanted), dtype=bool)
        limits = sizes[np.where(is_orphan, len(ids), rows)]
        files = {image["id"]: image["file_name"] for image in images}
        return cls(annotations, boxes, limits, is_orphan, files, folder)

    def first(self, rows: np.ndarray) -> str:
        """How a message refers to the first of these annotations: its ids, its image's file and its box."""
        annotation = self.annotations[int(rows[0])]
        file = self.files.get(annotation["image_id"])
        return f"{name_of(annotation)}{f', {file}' if file else ''}: {short(annotation['bbox'])}"

    def find_bad(self) -> tuple[str, np.ndarray]:
        """A summary of the boxes that training clamps or drops, empty if there are none, and those that stay, [N]."""
        corners = np.stack([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], axis=1)  # [N, corner, xy]
        clamped = np.clip(corners, 0, self.limits[:, None])
        empty = ~self.is_orphan & (clamped[:, 1] <= clamped[:, 0]).any(axis=1)
        outside = ~self.is_orphan & ~empty & (abs(clamped - corners) > ROUNDING).any(axis=(1, 2))
        parts = []
        for found, one, many in (
            (outside, "box extends beyond its image: clamped", "boxes extend beyond their image: clamped"),
            (empty, "box has no area inside its image: dropped", "boxes have no area inside their image: dropped"),
            (
                self.is_orphan,
                "annotation belongs to an unlisted image: ignored",
                "annotations belong to unlisted images: ignored",
            ),
        ):
            rows = np.flatnonzero(found)
            if len(rows):
                named = [f"{name_of(self.annotations[i])}: {self.annotations[i]['bbox']}" for i in rows[:4]]
                parts.append(f"{len(rows)} {one if len(rows) == 1 else many} ({preview(named)})")
        return "; ".join(parts), ~empty & ~self.is_orphan

    def suspicions(self, usable: np.ndarray) -> list[str]:
        """One warning for each way in which the boxes are probably not what they should be.

        Args:
            usable: bool [N], boxes with an area inside their image.

        Raises:
            ValueError: the boxes are corners, not sizes.
        """
        found = (self.corners(), self.fractions(), self.rotations(), self.nothing_left(usable))
        return [warning for warning in found if warning]

    def corners(self) -> str:
        """A warning that boxes look like corners, empty if they do not; ValueError if there is no doubt."""
        known = np.isfinite(self.limits).all(axis=1)
        boxes, limits = self.boxes[known], self.limits[known]
        far = (boxes[:, :2] + boxes[:, 2:] > far_beyond(limits)).any(axis=1)
        fits = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (boxes[:, 2:] <= limits + 1).all(axis=1)
        fits &= (boxes[:, :2] >= 0).all(axis=1)
        if not far.any() or not fits[far].all() or far.mean() < CORNERS_NAMED:
            return ""
        rows = np.flatnonzero(known)[far]
        owners = {self.annotations[row]["image_id"] for row in rows[:LOOKED_UP].tolist()}
        if self.folder and any(is_turned(self.folder / self.files[owner]) for owner in owners):
            return ""  # boxes drawn on the upright image reach beyond the stored one
        looks = (
            f"{int(far.sum())} of {len(boxes)} boxes reach far beyond their image when read as [x, y, width, height], "
            f"and would fit as corners [x0, y0, x1, y1] ({self.first(rows)})"
        )
        if far.sum() >= CORNERS_COUNT and far.mean() >= CORNERS_REFUSED and fits.all():
            raise ValueError(f"{looks}: write [x0, y0, x1 - x0, y1 - y0] as `bbox`")
        return f"{looks}: if they are corners, write [x0, y0, x1 - x0, y1 - y0] as `bbox`"

    def fractions(self) -> str:
        """A warning that boxes look like fractions of the image, empty if they do not."""
        boxes = self.boxes
        found = ((boxes >= 0) & (boxes <= 1)).all(axis=1) & (boxes % 1 != 0).any(axis=1) & (self.limits > 2).all(axis=1)
        if not found.any() or found.mean() < FRACTIONS:
            return ""
        return (
            f"{int(found.sum())} of {len(boxes)} boxes lie within 0..1 pixels and look like fractions of the image "
            f"({self.first(np.flatnonzero(found))}): COCO's boxes are in pixels; multiply x and width by the image's "
            "width, y and height by its height"
        )

    def rotations(self) -> str:
        """A warning that boxes are rotated, empty if none is."""
        keys = set(chain.from_iterable(self.annotations))
        if keys.isdisjoint(ROTATED_BOXES | ROTATIONS | {"attributes"}):
            return ""
        rows = [row for row, annotation in enumerate(self.annotations) if _is_rotated(annotation)]
        if not rows:
            return ""
        count = f"{len(rows)} box{' is' if len(rows) == 1 else 'es are'}"
        return (
            f"{count} rotated ({self.first(np.array(rows))}), but rotation is not read: the box of a rotated object "
            "should be the upright rectangle around it; write that as `bbox`"
        )

    def nothing_left(self, usable: np.ndarray) -> str:
        """A warning that there is no object, empty if there is one; `usable` as in `suspicions`."""
        crowd = np.array([bool(annotation["iscrowd"]) for annotation in self.annotations], dtype=bool)
        if (usable & ~crowd).any():
            return ""
        nothing = "there is no object to learn or to evaluate"
        if not len(usable):
            return f"{nothing}: the file has no annotations, so every image counts as empty"
        reasons = [
            f"{int(found.sum())} {what}"
            for found, what in (
                (usable & crowd, "crowd regions (iscrowd 1), which training leaves out"),
                (~usable & ~self.is_orphan, "boxes without area inside their image"),
                (self.is_orphan, "of unlisted images"),
            )
            if found.any()
        ]
        count = f"{len(usable)} annotation{'s' * (len(usable) > 1)}"
        return f"{nothing}: the file has {count}, {', '.join(reasons)} ({self.first(np.arange(len(usable)))})"


def far_beyond(sizes: np.ndarray) -> np.ndarray:
    """The coordinate from which a box reaches too far beyond a side of these pixels for mere carelessness."""
    return sizes + np.maximum(FAR * sizes, FAR_PIXELS)


def _is_rotated(annotation: Annotation) -> bool:
    attributes = annotation.get("attributes")
    for fields in (annotation, attributes) if isinstance(attributes, dict) else (annotation,):
        if not ROTATED_BOXES.isdisjoint(fields) and any(fields.get(key) for key in ROTATED_BOXES):
            return True
        if not ROTATIONS.isdisjoint(fields) and any(_is_angle(fields.get(key)) for key in ROTATIONS):
            return True
    return False


def _is_angle(value: Any) -> bool:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return False
    if not is_number(value) or not abs(value) <= 1e6:
        return False
    turned = abs(math.remainder(value, 360))
    return 1e-3 < turned
