"""Panoptic PNG files: the colour of a pixel is the id of its segment, R + 256 G + 65536 B; 0 belongs to none.

Format: https://cocodataset.org/#format-data, "Panoptic Segmentation".
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from util.pictures.segment_png import colors_to_ids

VOID = 0  # pixels that no segment of the ground truth covers
MAX_SEGMENT_ID = 2**24 - 1


def read_segment_map(path: str | Path) -> np.ndarray:
    """The segment id of every pixel, int32 [h, w].

    Raises:
        FileNotFoundError, OSError, ValueError: no such file, one that cannot be read, one that has no ids; by its name.
    """
    try:
        return decode_segment_map(Path(path).read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"panoptic map {path} does not exist: check the folder of the maps and the annotation's file_name"
        ) from None
    except ValueError as error:
        raise ValueError(f"panoptic map {path} {error}") from None
    except OSError as error:
        raise OSError(f"panoptic map {path} cannot be read ({error.strerror}): check its permissions") from None


def decode_segment_map(png: bytes) -> np.ndarray:
    """The same out of a file's content; ValueError says what is wrong with it, without its name."""
    try:
        with Image.open(io.BytesIO(png)) as image:
            mode = image.mode
            pixels = np.asarray(image)
    except Exception as error:  # damaged files surface as whatever the decoder stumbled over, of almost any type
        raise ValueError(f"cannot be read as an image ({str(error) or type(error).__name__}): replace it") from error
    if mode not in ("RGB", "RGBA"):
        raise ValueError(f"has pixels of mode {mode}, but ids are colours: save it as RGB, id = R + 256 G + 65536 B")
    return colors_to_ids(pixels)
