"""Segment ids as colours, the encoding of COCO's panoptic PNG files: id = R + 256 G + 65536 B."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def ids_to_colors(ids: np.ndarray) -> np.ndarray:
    """Ids [h, w], each in 0..2^24 - 1 → uint8 [h, w, 3], RGB."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)


def colors_to_ids(pixels: np.ndarray) -> np.ndarray:
    """RGB or RGBA, uint8 [h, w, 3 or 4] → int32 [h, w]."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return red + (green << 8) + (blue << 16)


def encode_png(ids: np.ndarray) -> bytes:
    """Ids [h, w], each in 0..2^24 - 1 → the content of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(ids_to_colors(ids)).save(file, format="PNG")
    return file.getvalue()
