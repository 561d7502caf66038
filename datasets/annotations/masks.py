"""COCO segmentations → run-length codes and bool masks: the one place where ground truth is rasterised.

Training masks and both evaluators use the same codes. pycocotools draws the polygons, as in the published code. They
are checked first, because it crashes instead of raising when a number is not finite or far outside, and leaves the rest
of a mask undefined if a code is too short.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from util.text import printable

FARTHEST = 1e5  # pixels; pycocotools walks a polygon's edges in steps of 0.2
LONGEST = 2e6  # pixels; the length of a polygon's edges, which decides the memory of the walk
CORNERS = 3  # a polygon with fewer covers nothing


def segmentation_to_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """One object's mask as a compressed run-length code, {"size": [height, width], "counts": str}.

    Args:
        segmentation: a list of polygons [x0, y0, x1, y1, …] (the mask is their union), or a dict of `size` [h, w] and
            run-length `counts`, plain or compressed. A polygon of fewer than three points covers nothing.
        height, width: size of the image in pixels.

    Raises:
        ValueError: neither of the two forms, or not of the image's size. The message continues "annotation … has".
    """
    return {"size": [height, width], "counts": _encode(segmentation, height, width)["counts"].decode()}


def segmentation_to_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """One object's mask, bool [height, width]; arguments and errors as in `segmentation_to_rle`."""
    return coco_mask.decode(_encode(segmentation, height, width)).astype(bool)


def check_polygon(points: Any) -> np.ndarray:
    """A polygon's numbers x0, y0, x1, y1, … as float64 [2 n]; ValueError if it cannot be drawn."""
    numbers = isinstance(points, list | tuple) and all(isinstance(value, int | float) for value in points)
    if not numbers:
        raise ValueError(
            "a polygon that is not a list of numbers x0, y0, x1, y1, …: a segmentation is a list of such lists, also "
            "if it is a single polygon"
        )
    if len(points) % 2:
        raise ValueError(f"a polygon of {len(points)} numbers, which are no pairs x, y")
    if not all(-FARTHEST <= value <= FARTHEST for value in points):
        raise ValueError("a polygon with a corner that is NaN, infinite or far outside any image")
    corners = np.array(points, dtype=np.float64).reshape(-1, 2)  # [n, xy]
    if len(corners) and np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum() > LONGEST:
        raise ValueError(f"a polygon whose edges are longer than {LONGEST:.0f} pixels in all")
    return corners.ravel()


def check_runs(code: dict[str, Any], height: int, width: int) -> list[int]:
    """The counts of a run-length code, plain or compressed; ValueError unless it is one of a mask of this size."""
    size, counts = code.get("size"), code.get("counts")
    if not isinstance(size, list | tuple) or tuple(size) != (height, width):
        shown = tuple(size) if isinstance(size, list | tuple) else size
        raise ValueError(f"a mask of (h, w) = {printable(shown, 60)} on an image of {(height, width)}")
    if isinstance(counts, str | bytes):
        counts = _uncompress(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("a run-length code whose counts are not non-negative integers")
    if sum(counts) != height * width:
        raise ValueError(f"a run-length code of {sum(counts)} pixels on an image of {height * width}")
    return counts


def _encode(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """`segmentation_to_rle` with the counts as bytes."""
    if isinstance(segmentation, dict):
        counts = check_runs(segmentation, height, width)
        return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    if not isinstance(segmentation, list | tuple):
        raise ValueError("a segmentation that is neither a list of polygons nor a run-length code")
    polygons = [polygon for polygon in map(check_polygon, segmentation) if len(polygon) >= 2 * CORNERS]
    if not polygons:
        return coco_mask.frPyObjects({"size": [height, width], "counts": [height * width]}, height, width)
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))


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
    if shift:
        raise ValueError("a compressed run-length code that ends inside a number")
    return counts
