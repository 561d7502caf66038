"""Image file → 8-bit RGB image, whatever the file holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # the EXIF tag
TURN = {  # what makes an image upright that is stored with this tag
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow turns TIFF files, and no others, by their tag while loading; this undoes it.
TURN_BACK = TURN | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


def read_image(path: str | Path, annotated_size: tuple[int, int] | None = None) -> Image.Image:
    """The image as RGB, 8 bits a channel; transparency is dropped, 16-bit grey is scaled down.

    Args:
        path: the image file.
        annotated_size: (w, h) of the frame in which the annotations were drawn, if known. The EXIF orientation is
            applied only where it makes the image fit that frame and the stored image does not: the boxes of most data
            sets, COCO among them, were drawn on the pixels as stored.

    Raises:
        FileNotFoundError, OSError: a missing or unreadable file, by its name.
    """
    try:
        with Image.open(path) as image:
            tag = _orientation(image) if image.format == "TIFF" else None  # Pillow drops it while loading
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
    except Exception as error:  # damaged files surface as whatever the decoder stumbled over, of almost any type
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OSError(
            f"image file {path} cannot be read ({cause}): replace the file or take it out of the annotations"
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    orientation = _orientation(image)
    return image.transpose(TURN[orientation]) if orientation in TURN else image


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # a damaged EXIF block; the pixels beside it may well be whole
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode → RGB."""
    if image.mode == "RGB":
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 and leaves a white image; a PNG of 16 bits has mode "I" in old versions.
        grey = np.asarray(image).clip(0, 2**16 - 1).astype(np.uint16)
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB Pillow warns; the colours are the same
    return image.convert("RGB")
