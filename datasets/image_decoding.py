"""Decoding one image file of any format and mode to 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # the EXIF tag
TURN = {  # value of the tag → the transpose that makes the stored image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow applies the tag of TIFF files, and of no others, while loading; this undoes it.
TURN_BACK = TURN | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


def read_image(path: str | Path, annotated_size: tuple[int, int] | None = None) -> Image.Image:
    """Read an image as RGB, 8 bits per channel. Transparency is dropped; 16-bit grey is scaled down.

    Args:
        path: the image file.
        annotated_size: (w, h) in pixels of the image that was annotated, if known. The EXIF orientation is applied only
            if the turned image has this size and the stored one does not: in most data sets, including COCO, the boxes
            refer to the pixels as stored.

    Raises:
        FileNotFoundError, OSError: the file is missing or cannot be read; the message names it.
    """
    try:
        with Image.open(path) as image:
            tag = _orientation(image) if image.format == "TIFF" else None  # loading drops the tag
            image.load()
            stored = image.transpose(TURN_BACK[tag]) if tag in TURN_BACK else image
            if annotated_size not in (None, stored.size):
                turned = image if tag in TURN_BACK else _upright(image)
                if turned.size == annotated_size:
                    return to_rgb(turned)
            return to_rgb(stored)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"image file {path} does not exist: check the image folder and the annotation's file_name"
        ) from None
    except Exception as error:  # the decoder can raise almost any type on damaged files
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OSError(
            f"image file {path} cannot be read ({cause}): replace it, or remove it from the annotations"
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    orientation = _orientation(image)
    return image.transpose(TURN[orientation]) if orientation in TURN else image


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # a damaged EXIF block; the pixels may still be intact
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB, 8 bits per channel."""
    if image.mode == "RGB":
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255, so the image turns white. Old versions give 16-bit PNGs the mode "I".
        grey = np.asarray(image).clip(0, 2**16 - 1).astype(np.uint16)
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns on direct conversion to RGB; the colours are equal
    return image.convert("RGB")
