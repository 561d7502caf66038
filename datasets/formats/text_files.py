"""Small text files that others made: read whole, with one sentence about what is wrong."""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

from util.text import printable

LARGEST = 2**28  # bytes; label files have some thousand


def read_content(path: Path, what: str, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file.

    Args:
        path: the file.
        what: it is in messages, such as "label file".
        largest: number of bytes that is read.

    Raises:
        FileNotFoundError, OSError: it does not exist, cannot be read, or is a pipe or a device.
        ValueError: it is larger than `largest`.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, a device read without end
            raise OSError(f"{what} {printable(path)} is not a regular file: move it elsewhere")
        if found.st_size > largest:
            raise ValueError(f"{what} {printable(path)} has {found.st_size:,} bytes, more than the {largest:,} allowed")
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{what} {printable(path)} does not exist") from None
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(f"{what} {printable(path)} cannot be read ({error.strerror}): check its permissions") from None


def read_text(path: Path, what: str, largest: int = LARGEST) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        OSError, ValueError: see `read_content`; or the file is in another encoding.
    """
    content = read_content(path, what, largest)
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{what} {printable(path)} is not text in UTF-8 (byte {error.start + 1}): it is damaged, or of another "
            "kind or encoding; save it as UTF-8, or move it elsewhere"
        ) from None


def beginning_of(path: Path, size: int) -> bytes:
    """The first bytes of a file, at most `size`; none if it is not a file or cannot be read."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""
