"""Opening image files that others made: regular files of raster formats, up to a number of pixels."""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import Image

from util.errors import OpenFilesError, lack_of_open_files
from util.settings import MAX_PIXELS
from util.text import printable

# Formats that Pillow may know and that are not opened. EPS, PDF and WMF hold drawing commands, which Pillow hands to
# other programs; BUFR, GRIB, HDF5 and MPEG are only recognised, not decoded; FITS is decompressed without a limit; IPTC
# opens its content whatever the format.
NOT_OPENED = frozenset(("EPS", "PDF", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "FITS", "IPTC"))

# How files begin that are often taken for images.
_BEGINNINGS = (
    (rb"(%!PS|\xc5\xd0\xd3\xc6)", "it is PostScript, which is not opened: convert it to PNG"),
    (rb"%PDF", "it is a PDF: convert its pages to PNG"),
    (rb"....ftyp(hei|hev|mif|msf)", "it is HEIC, which Pillow does not read: convert it to JPEG"),
    (rb"\s*<(!doctype html|html)", "it is a web page, not an image"),
    (rb"\s*<(\?xml|svg)", "it is XML or SVG, not an image of pixels"),
    (rb"version https://git-lfs", "it is a pointer of Git LFS: run git lfs pull"),
)


@cache
def raster_formats() -> tuple[str, ...]:
    """The formats that are opened, in Pillow's order of trying them."""
    Image.init()
    return tuple(name for name in dict.fromkeys(Image.ID) if name in Image.OPEN and name not in NOT_OPENED)


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes in lower case, such as ".jpg", of the formats that are opened."""
    readable = {*raster_formats(), "MPO"}  # MPO files are opened as JPEG
    return frozenset(suffix.lower() for suffix, name in Image.registered_extensions().items() if name in readable)


@contextmanager
def open_image(
    path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS, *, if_missing: str = "", if_damaged: str = ""
) -> Iterator[Image.Image]:
    """Context with the opened image, of which Pillow has read no more than the header. Every error names the file.

    Args:
        path: the file.
        max_pixels: an image with more pixels is refused before it is decoded.
        if_missing, if_damaged: advice at the end of the messages.

    Raises:
        FileNotFoundError: there is no file.
        OpenFilesError: too many files are open.
        OSError: the file cannot be read, has more than `max_pixels`, or anything was raised inside the context.
    """
    name = printable(path, 1000)
    try:
        _check_file(path)
        with pixel_limit(max_pixels), Image.open(path, formats=raster_formats()) as image:
            if image.width * image.height > max_pixels:
                raise _TooManyPixels(image.width * image.height)
            yield image
    except FileNotFoundError:
        raise FileNotFoundError(_missing(path, name, if_missing)) from None
    except Exception as error:  # the decoder can raise almost any type on damaged files
        too_many = lack_of_open_files(error)
        if too_many is not None:
            raise OpenFilesError(f"image file {name} cannot be opened: {too_many}") from error
        if isinstance(error, Image.DecompressionBombError | _TooManyPixels):
            raise OSError(f"image file {name} {too_many_pixels(error, max_pixels)}") from error
        cause = _cause(path, error)
        raise OSError(f"image file {name} cannot be read ({cause}){if_damaged and f': {if_damaged}'}") from error


def is_address(name: str) -> bool:
    """True for http://…, s3://…, file://… and data:…, also after a path object has merged the slashes."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/|data:\w+/", name) is not None


def addresses_are_not_read(address: str) -> str:
    """One sentence for an address in the place of an image file."""
    is_local = address.startswith("file:")
    advice = "name the path" if is_local else "download it first, and name the file"
    whole = address if is_local else re.sub(":/+", "://", address, count=1)  # a path object merges slashes
    return f"{printable(whole)} is an address, and images are read from files only: {advice}"


class _TooManyPixels(Exception):
    """The image has more pixels than allowed."""


class _ErrorLimit(int):
    """Pillow warns above its limit and refuses above two times the limit. Above this one, it refuses."""

    def __rmul__(self, factor: int) -> int:
        return int(self)


_lock = threading.Lock()
_limits: list[int] = []  # of the images that are open in all threads
_pillows_own: int | None = Image.MAX_IMAGE_PIXELS


@contextmanager
def pixel_limit(max_pixels: int) -> Iterator[None]:
    """Context in which Pillow's own limit, which also holds for images inside of images, is at `max_pixels`."""
    global _pillows_own
    with _lock:
        if not _limits:
            _pillows_own = Image.MAX_IMAGE_PIXELS
        _limits.append(max_pixels)
        Image.MAX_IMAGE_PIXELS = _ErrorLimit(max(_limits))
    try:
        yield
    finally:
        with _lock:
            _limits.remove(max_pixels)
            Image.MAX_IMAGE_PIXELS = _ErrorLimit(max(_limits)) if _limits else _pillows_own


def _check_file(path: str | os.PathLike[str]) -> None:
    """Refuse what is not a regular file, which may block for ever, and an empty file."""
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise OSError(f"it is {kinds.get(stat.S_IFMT(found.st_mode), 'a device')}, not a file")
    if found.st_size == 0:
        raise OSError("the file is empty")


def _missing(path: str | os.PathLike[str], name: str, advice: str) -> str:
    if is_address(os.fspath(path)):
        return addresses_are_not_read(os.fspath(path))
    return f"image file {name} does not exist{advice and f': {advice}'}"


def too_many_pixels(error: Exception, max_pixels: int) -> str:
    """What is wrong with a file of which Pillow raised that it has more than `max_pixels`, to follow its name."""
    found = re.search(r"\d+", str(error))
    pixels = int(found[0]) if found else max_pixels + 1
    return (
        f"has {pixels:,} pixels, more than the limit of {max_pixels:,}: pass --max_pixels {pixels} to read it, or make "
        "it smaller"
    )


def _cause(path: str | os.PathLike[str], error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        try:
            beginning = Path(path).open("rb").read(64)
        except OSError as second:
            return second.strerror or str(second)
        what = (words for pattern, words in _BEGINNINGS if re.match(pattern, beginning, re.IGNORECASE | re.DOTALL))
        return next(what, "it is damaged, or of a format that Pillow does not read")
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__, 500)
