"""A decoded frame → its pixels as the camera was held: turned and mirrored as the file says."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

STRAIGHT = (1, 0, 0, 1)


class Upright:
    """Turns and mirrors the frames of one source."""

    def __init__(self) -> None:
        self._rotation: int | None = None
        self._matrix = STRAIGHT

    def __call__(self, frame: Any) -> np.ndarray:
        """uint8 [H, W, 3] of a frame of PyAV's."""
        if frame.rotation != self._rotation:  # seldom: reading side data keeps a frame in memory
            self._rotation, self._matrix = frame.rotation, _display_matrix(frame)
        pixels = frame.to_ndarray(format="rgb24")
        return pixels if self._matrix == STRAIGHT else _shown(pixels, *self._matrix)

    @property
    def turned(self) -> bool:
        """Whether rows of the last frame became columns."""
        return abs(self._matrix[0]) < abs(self._matrix[1])


def _shown(pixels: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """A pixel at (p, q) is shown at (a p + c q, b p + d q): by quarters of a turn, and mirrored."""
    if abs(a) >= abs(b):
        across, down = a, d
    else:
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """Its part that turns and mirrors."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return STRAIGHT
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(found)[:36])
    return a, b, c, d
