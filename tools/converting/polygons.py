"""Polygons and boxes in another frame, and several polygons as one."""

from __future__ import annotations

from collections.abc import Sequence

Size = tuple[int, int]


def joined(polygons: Sequence[Sequence[float]]) -> list[float]:
    """One polygon through all of these, with a bridge there and back between the nearest points of each two.

    The bridges enclose nothing, so the area stays.

    Args:
        polygons: each x1, y1, x2, …
    """
    rings = [list(zip(points[::2], points[1::2], strict=True)) for points in polygons]
    whole = rings[0]
    for ring in rings[1:]:
        distances = (
            ((x - u) ** 2 + (y - v) ** 2, here, there)
            for here, (x, y) in enumerate(whole)
            for there, (u, v) in enumerate(ring)
        )
        _, here, there = min(distances)
        whole = whole[: here + 1] + ring[there:] + ring[: there + 1] + whole[here:]
    return [value for point in whole for value in point]


def turned_points(points: Sequence[float], size: Size, orientation: int) -> list[float]:
    """Points on an image as stored → on the image turned upright.

    Args:
        points: x1, y1, x2, …, pixels.
        size: (w, h) as stored.
        orientation: EXIF's; only quarter turns, 5 to 8, change anything.
    """
    width, height = size
    turn = {
        5: lambda x, y: (y, x),
        6: lambda x, y: (height - y, x),
        7: lambda x, y: (height - y, width - x),
        8: lambda x, y: (y, width - x),
    }.get(orientation)
    if turn is None:
        return list(points)
    return [value for x, y in zip(points[::2], points[1::2], strict=True) for value in turn(x, y)]


def turned_box(box: Sequence[float], size: Size, orientation: int) -> list[float]:
    """`turned_points` for a box, xywh."""
    if orientation not in (5, 6, 7, 8):
        return list(box)
    x, y, w, h = box
    x1, y1, x2, y2 = turned_points([x, y, x + w, y + h], size, orientation)
    return [min(x1, x2), min(y1, y2), h, w]
