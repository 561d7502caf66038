"""Reading panoptic PNG files: a pixel's colour is its segment id, R + 256 G + 65536 B, or 0 for no segment.

Format: https://cocodataset.org/#format-data, "Panoptic Segmentation".
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.image_files import pixel_limit, raster_formats, too_many_pixels
from util.pictures.segment_png import colors_to_ids
from util.settings import MAX_PIXELS

VOID = 0  # pixels that no segment of the ground truth covers
MAX_SEGMENT_ID = 2**24 - 1


def read_segment_map(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The segment id of every pixel, int32 [h, w]; a file with more than `max_pixels` is refused.

    Raises:
        FileNotFoundError, OSError, ValueError: the file does not exist, cannot be read, or is not a segment map; the
            message names it.
    """
    try:
        return decode_segment_map(Path(path).read_bytes(), max_pixels)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"panoptic map {path} does not exist: check the folder of the maps and the annotation's file_name"
        ) from None
    except ValueError as error:
        raise ValueError(f"panoptic map {path} {error}") from None
    except OSError as error:
        raise OSError(f"panoptic map {path} cannot be read ({error.strerror}): check its permissions") from None


def decode_segment_map(png: bytes, max_pixels: int = sys.maxsize) -> np.ndarray:
    """The segment id of every pixel, int32 [h, w], from a PNG file's bytes; ValueError says what is wrong with it."""
    try:
        with pixel_limit(max_pixels), Image.open(io.BytesIO(png), formats=raster_formats()) as image:
            mode = image.mode
            pixels = np.asarray(image)
    except Image.DecompressionBombError as error:
        raise ValueError(too_many_pixels(error, max_pixels)) from error
    except Exception as error:  # the decoder can raise almost any type on damaged files
        raise ValueError(f"cannot be read as an image ({str(error) or type(error).__name__}): replace it") from error
    if mode not in ("RGB", "RGBA"):
        raise ValueError(f"has mode {mode}, but the ids are RGB colours: save it as RGB with id = R + 256 G + 65536 B")
    return colors_to_ids(pixels)
