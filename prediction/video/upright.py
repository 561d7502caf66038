"""A decoded frame → its pixels as the camera was held: turned and mirrored as the file says."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np


def upright(frame: Any) -> np.ndarray:
    """uint8 [H, W, 3] of a frame of PyAV's."""
    pixels = frame.to_ndarray(format="rgb24")
    matrix = _display_matrix(frame)
    return pixels if matrix is None else _shown(pixels, *matrix)


def is_turned(frame: Any) -> bool:
    """Whether rows become columns."""
    matrix = _display_matrix(frame)
    return matrix is not None and abs(matrix[0]) < abs(matrix[1])


def _shown(pixels: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """A pixel at (p, q) is shown at (a p + c q, b p + d q): by quarters of a turn, and mirrored."""
    if abs(a) >= abs(b):
        across, down = a, d
    else:
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """Its part that turns and mirrors, if the file has one."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(found)[:36])
    return a, b, c, d
