"""COCO segmentations → bool masks.

pycocotools draws the polygons. They are checked first, because it crashes instead of raising when a number is not
finite or far outside. Run-length codes are decoded here, because pycocotools leaves the rest of a mask undefined if its
code is too short.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

FARTHEST = 1e5  # pixels; pycocotools walks a polygon's edges in steps of 0.2


def segmentation_to_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """One object's mask, bool [height, width].

    Args:
        segmentation: a list of polygons [x0, y0, x1, y1, …] (the mask is their union), or a dict of `size` [h, w] and
            run-length `counts`, plain or compressed. A polygon of fewer than three points covers nothing.
        height, width: size of the image in pixels.

    Raises:
        ValueError: neither of the two forms, or not of the image's size. The message continues "annotation … has".
    """
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, height, width)
    if not isinstance(segmentation, list | tuple):
        raise ValueError("a segmentation that is neither a list of polygons nor a run-length code")
    polygons = [polygon for polygon in map(_polygon, segmentation) if len(polygon) >= 6]
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))).astype(bool)


def _polygon(points: Any) -> list[float]:
    if not isinstance(points, list | tuple) or not all(isinstance(v, int | float) for v in points):
        raise ValueError("a polygon that is not a list of numbers x0, y0, x1, y1, …")
    if not all(-FARTHEST <= value <= FARTHEST for value in points):
        raise ValueError("a polygon with a corner that is NaN, infinite or far outside any image")
    return [float(value) for value in points]


def _from_runs(code: dict[str, Any], height: int, width: int) -> np.ndarray:
    size, counts = code.get("size"), code.get("counts")
    if not isinstance(size, list | tuple) or tuple(size) != (height, width):
        shown = tuple(size) if isinstance(size, list | tuple) else size
        raise ValueError(f"a mask of (h, w) = {shown} on an image of {(height, width)}")
    if isinstance(counts, str | bytes):
        counts = _uncompress(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("a run-length code whose counts are not non-negative integers")
    if sum(counts) != height * width:
        raise ValueError(f"a run-length code of {sum(counts)} pixels on an image of {height * width}")
    runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)  # by columns, starting outside the object
    return runs.reshape(width, height).T


def _uncompress(text: str | bytes) -> list[int]:
    """Counts of a compressed code, as COCO's `rleFrString` reads it.

    Each character holds five bits, low bits first; from the fourth on, a count is stored as its difference to the count
    two before it.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text.encode() if isinstance(text, str) else text:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("a compressed run-length code with invalid characters")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts
