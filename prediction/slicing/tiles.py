"""The tiles of a large picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

Tile = tuple[int, int, int, int]  # xyxy in pixels of the picture


def tiles_of(size: tuple[int, int], side: int, overlap: float) -> list[Tile]:
    """Tiles of one size that cover a picture of `size` = (w, h), row by row.

    Tiles are square with this side, in pixels, or as narrow or low as the picture. Neighbours share at least the
    fraction `overlap` of the side, and are spaced evenly.

    Raises:
        ValueError: a side below 1, or an overlap outside [0, 0.9].
    """
    check_slices(side, overlap)
    width, height = (min(side, length) for length in size)
    columns, rows = (_starts(length, side, overlap) for length in size)
    return [(x, y, x + width, y + height) for y in rows for x in columns]


def shared_by(tiles: Sequence[Tile]) -> tuple[float, float]:
    """What neighbours share at least, in pixels across and down; infinite in a direction with one tile only."""
    shared = []
    for low, high in ((0, 2), (1, 3)):
        starts = sorted({tile[low] for tile in tiles})
        step = max((after - before for before, after in zip(starts, starts[1:])), default=-math.inf)
        shared.append(tiles[0][high] - tiles[0][low] - step)
    return shared[0], shared[1]


def check_slices(side: int, overlap: float) -> None:
    """Raise a ValueError, which names the flag, for what `tiles_of` does not take."""
    if side < 1:
        raise ValueError(f"--slice must be at least 1 pixel, got {side}")
    if not 0 <= overlap <= 0.9:
        raise ValueError(f"--overlap is a fraction of the tile's side in [0, 0.9], got {overlap:g}")


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Where the tiles begin along one direction; the last ends with the picture."""
    free = length - side
    if free <= 0:
        return [0]
    step = max(1, math.floor(side * (1 - overlap)))
    steps = math.ceil(free / step)
    return [free * index // steps for index in range(steps + 1)]
