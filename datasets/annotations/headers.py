"""The size and orientation of an image file, without decoding it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from datasets.image_decoding import ORIENTATION
from datasets.image_files import open_image
from util.settings import MAX_PIXELS

TIFF_WIDTH, TIFF_HEIGHT = 256, 257  # tags
Size = tuple[int, int]


class Header(NamedTuple):
    """What the beginning of an image file says."""

    size: Size  # (w, h) in pixels as stored
    orientation: int  # EXIF's tag, 1 for upright

    @property
    def upright_size(self) -> Size:
        return self.size[::-1] if self.orientation in (5, 6, 7, 8) else self.size

    def is_read_as(self, annotated: Size | None) -> Size:
        """(w, h) of what `read_image` returns: turned only if just that has the annotated size."""
        return self.upright_size if annotated == self.upright_size else self.size


def read_header(path: str | Path, max_pixels: int = MAX_PIXELS) -> Header | None:
    """The size and orientation of an image file; None if `open_image` refuses it."""
    try:
        with open_image(path, max_pixels) as image:
            # Not `image.getexif`, which decodes a PNG to look for a block behind its pixels.
            orientation = Image.Image.getexif(image).get(ORIENTATION)
            size = image.size
            if image.format == "TIFF":  # Pillow gives the size after turning
                size = image.tag_v2[TIFF_WIDTH], image.tag_v2[TIFF_HEIGHT]
    except OSError:  # reading the image will say what is wrong with the file
        return None
    return Header(size, orientation if orientation in range(2, 9) else 1)


def is_turned(path: str | Path) -> bool:
    """Whether an image file's EXIF orientation is a quarter turn, which exchanges width and height."""
    header = read_header(path)
    return header is not None and header.upright_size != header.size


def annotated_size(image: Mapping[str, Any]) -> Size | None:
    """(w, h) of a COCO `images` entry; None if it does not say."""
    return (image["width"], image["height"]) if image.get("width") and image.get("height") else None
