"""COCO segmentations → bool masks.

pycocotools draws polygons; what it is given is checked before, because it crashes, not raises, on numbers that are
not finite or far off. Run-length codes are read here, since it leaves what a short one does not cover undefined.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

FARTHEST = 1e5  # pixels; a polygon's edges are walked in fifths of one


def segmentation_to_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """One object's mask, bool [height, width].

    Args:
        segmentation: a list of polygons [x0, y0, x1, y1, …], whose union counts, or a dict of `size` [h, w] and
            run-length `counts`, plain or compressed. A polygon of fewer than three points covers nothing.
        height, width: of the image, pixels.

    Raises:
        ValueError: none of these, or of another size than the image; the message says what it is that the object has.
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
        raise ValueError("a polygon that is no list of numbers x0, y0, x1, y1, …")
    if not all(-FARTHEST <= value <= FARTHEST for value in points):
        raise ValueError("a polygon has a corner at NaN, infinity or far outside of any image")
    return [float(value) for value in points]


def _from_runs(code: dict[str, Any], height: int, width: int) -> np.ndarray:
    size, counts = code.get("size"), code.get("counts")
    if not isinstance(size, list | tuple) or tuple(size) != (height, width):
        shown = tuple(size) if isinstance(size, list | tuple) else size
        raise ValueError(f"a mask of (h, w) = {shown} on an image of {(height, width)}")
    if isinstance(counts, str | bytes):
        counts = _uncompress(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("a run-length code whose counts are no whole numbers")
    if sum(counts) != height * width:
        raise ValueError(f"a run-length code of {sum(counts)} pixels on an image of {height * width}")
    runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)  # by columns, beginning outside of the object
    return runs.reshape(width, height).T


def _uncompress(text: str | bytes) -> list[int]:
    """Counts of a compressed code: five bits a character, low ones first; from the fourth on as a difference to the
    count two before. (COCO's `rleFrString`.)"""
    counts: list[int] = []
    value = shift = 0
    for character in text.encode() if isinstance(text, str) else text:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("a compressed run-length code has characters that none has")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts
