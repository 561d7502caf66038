"""The panoptic map of an image: each pixel belongs to at most one segment, a thing or stuff.

Ids follow COCO's panoptic format (https://cocodataset.org/#format-data): segments count from 1, 0 is void.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from util.pictures.segment_png import ids_to_colors


@dataclass(frozen=True)
class PanopticMap:
    """The segments of an image.

    Attributes:
        ids: int32 [H, W], the segment id of each pixel; 0 where no segment was predicted.
        segments: [{"id", "isthing", "category_id", "name", "area"}], ids from 1, areas in pixels.
    """

    ids: np.ndarray
    segments: list[dict[str, Any]]

    @classmethod
    def of(
        cls,
        ids: np.ndarray,
        segments: Iterable[Mapping[str, Any]],
        names: Mapping[int, str],
        classes: Collection[int] | None = None,
    ) -> PanopticMap:
        """Convert the result of `PostProcessPanoptic`, whose ids start at 0 (its map is 0 too if there is no segment).

        Args:
            ids: int [H, W].
            segments: {"id", "isthing", "category_id", "area"}.
            names: category id → name.
            classes: category ids of the segments to keep; other pixels become void.
        """
        kept = [segment for segment in segments if classes is None or segment["category_id"] in classes]
        numbers = np.zeros(int(ids.max()) + 1, dtype=np.int32)  # old id → new id
        numbers[[segment["id"] for segment in kept]] = np.arange(1, len(kept) + 1)
        renamed = [
            {
                "id": number,
                "isthing": bool(segment["isthing"]),
                "category_id": int(segment["category_id"]),
                "name": names.get(segment["category_id"], f"class {segment['category_id']}"),
                "area": int(segment["area"]),
            }
            for number, segment in enumerate(kept, start=1)
        ]
        return cls(numbers[ids], renamed)

    def picture(self) -> Image.Image:
        """The map in colours: id = R + 256 G + 65536 B."""
        return Image.fromarray(ids_to_colors(self.ids))

    def segments_info(self) -> list[dict[str, Any]]:
        """The segments as COCO writes them: without names, with boxes x, y, width, height."""
        return [
            {
                "id": segment["id"],
                "category_id": segment["category_id"],
                "area": segment["area"],
                "bbox": _box(self.ids == segment["id"]),
                "iscrowd": 0,
            }
            for segment in self.segments
        ]

    def resized(self, size: tuple[int, int]) -> PanopticMap:
        """The map resized to (w, h); segments that vanish are dropped."""
        ids = np.asarray(Image.fromarray(self.ids).resize(size, Image.Resampling.NEAREST))
        areas = np.bincount(ids.ravel(), minlength=int(self.ids.max()) + 1)
        segments = [segment | {"area": int(areas[segment["id"]])} for segment in self.segments]
        return PanopticMap(ids, [segment for segment in segments if segment["area"]])


def panoptic_json(
    records: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]], categories: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of a COCO panoptic file.

    Args:
        records: for each image its `map_name`, the file of its map, and its `segments`, from `segments_info`.
        images: the image entries, in the same order.
        categories: {"id", "name", "isthing"}.
    """
    annotations = [
        {"image_id": image["id"], "file_name": record["map_name"], "segments_info": record["segments"]}
        for image, record in zip(images, records, strict=True)
    ]
    return {"images": list(images), "annotations": annotations, "categories": list(categories)}


def _box(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return [0, 0, 0, 0]
    x0, y0 = int(columns[0]), int(rows[0])
    return [x0, y0, int(columns[-1]) + 1 - x0, int(rows[-1]) + 1 - y0]
