"""Decoding one image of any format and mode to 8-bit RGB, as stored or upright."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from datasets.image_files import open_image
from datasets.sample_depth import is_deep, to_eight_bits
from util.logging import get_logger
from util.settings import MAX_PIXELS
from util.text import printable

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
SEQUENCES = ("GIF", "TIFF", "WEBP", "PNG", "AVIF", "FLI", "DCX", "IM")  # formats with frames or pages of equal rank
DARK = 64  # 8-bit colours below this that were reduced from 16 bits used 14 of the bits at most

Note = Callable[[str, str], None]  # (kind, sentence): says what was done to an image, once for each kind
_said: set[str] = set()


def note_once(kind: str, sentence: str) -> None:
    """Log the sentence as a warning if it is the first of its kind in this process."""
    if kind not in _said:
        _said.add(kind)
        get_logger().warning(f"{sentence} (reported once)")


def read_image(
    path: str | Path,
    annotated_size: tuple[int, int] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    note: Note = note_once,
) -> Image.Image:
    """Read an image as RGB, 8 bits per channel (see `to_rgb`); of an animation or a document, the first frame or page.

    Args:
        path: the image file.
        annotated_size: (w, h) in pixels of the image that was annotated, if known. The EXIF orientation is applied only
            if the turned image has this size and the stored one does not: in most data sets, including COCO, the boxes
            refer to the pixels as stored.
        max_pixels: an image with more pixels is refused before it is decoded.
        note: takes what a user may need to know about how the image was read.

    Raises:
        FileNotFoundError, OSError: the file is missing or cannot be read; the message names it.
    """
    advice = {
        "if_missing": "check the image folder and the annotation's file_name",
        "if_damaged": "replace it, or remove it from the annotations",
    }
    with open_image(path, max_pixels, **advice) as image:
        tag = orientation(image) if image.format == "TIFF" else None  # loading drops the tag
        rgb = _decode(image, note, path)
        stored = rgb.transpose(TURN_BACK[tag]) if tag in TURN_BACK else rgb
        if annotated_size not in (None, stored.size):
            turned = rgb if tag in TURN_BACK else _turn(rgb, orientation(image))
            if turned.size == annotated_size:
                return turned
        return stored


def upright_rgb(image: Image.Image, note: Note = note_once) -> Image.Image:
    """An opened or loaded image as RGB (see `to_rgb`), turned as the EXIF orientation says that it still carries."""
    rgb = _decode(image, note, getattr(image, "filename", "") or "an image")
    return _turn(rgb, orientation(image))  # read after decoding: a TIFF image is turned by then, and its tag is gone


def orientation(image: Image.Image) -> int | None:
    """The EXIF orientation, if there is one."""
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # a damaged EXIF block; the pixels may still be intact
        return None


def to_rgb(image: Image.Image, note: Note = note_once, name: str | Path = "an image") -> Image.Image:
    """Convert an image of any mode to RGB, 8 bits per channel. Transparency is dropped.

    Grey images of 16 or 32 bits or of floats are scaled by their own samples, see `datasets.sample_depth`.
    """
    if image.mode == "RGB":
        return image
    if is_deep(image):
        # Pillow's own conversion clips at 255, so the image turns white, or black if its samples are below 1.
        grey, rule = to_eight_bits(image)
        if rule:
            note("depth", f"{printable(name)} has {rule}; other such files are scaled by their own samples")
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns on direct conversion to RGB; the colours are equal
    return image.convert("RGB")


def _decode(image: Image.Image, note: Note, name: str | Path) -> Image.Image:
    """The whole image as RGB, as Pillow loads it."""
    is_reduced = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))  # read before loading clears it
    image.load()
    rgb = to_rgb(image, note, name)
    if is_reduced and not is_deep(image) and 0 < max(high for _, high in rgb.getextrema()) < DARK:
        note(
            "colours",
            f"{printable(name)} has 16-bit colours, of which Pillow keeps the 8 highest bits, and these are nearly "
            "black: if it holds 10-bit, 12-bit or 14-bit samples, convert it to 8 bits",
        )
    if image.format in SEQUENCES and _has_more(image) and image.tell() == 0:
        note("frames", f"{printable(name)} has several frames or pages: the first is used")
    return rgb


def _has_more(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame
        return False


def _turn(image: Image.Image, tag: int | None) -> Image.Image:
    return image.transpose(TURN[tag]) if tag in TURN else image
