"""A picture at an http(s) address → a file, bounded in time and size, which is removed after use."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from util.loading.transfer import Head, Refused, transfer
from util.text import printable

MAX_BYTES = 64 * 2**20
SILENCE, LONGEST = 12.0, 120.0  # seconds


@contextlib.contextmanager
def picture_at(url: str, *, max_bytes: int = MAX_BYTES, longest: float = LONGEST) -> Iterator[Path]:
    """Context with the content of an address in a temporary file. Errors inside it name the address, not that file.

    Args:
        url: an http(s) address.
        max_bytes: of the content.
        longest: seconds that the transfer may take.

    Raises:
        OSError: it cannot be loaded, exceeds a limit, or anything inside the context raised an OSError.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture")
        try:
            receive(url, path, max_bytes=max_bytes, longest=longest)
        except (Refused, ValueError) as error:
            raise OSError(f"the image {printable(url, 500)} cannot be loaded ({error}): check the address") from error
        try:
            yield path
        except OSError as error:
            raise OSError(str(error).replace(f"image file {path}", f"the image {printable(url, 500)}")) from error


def receive(
    url: str,
    path: Path,
    *,
    max_bytes: int = MAX_BYTES,
    longest: float = LONGEST,
    wanted: Callable[[Head], bool] = lambda head: True,
    stopped: Callable[[], bool] = lambda: False,
) -> Head:
    """Load what is at an address into a new file, unless its head is not wanted: then the file is empty.

    Raises:
        Refused: it cannot be loaded, exceeds a limit, or is `stopped`; the message is a clause that gives the cause.
    """
    size, until = 0, time.monotonic() + longest
    with path.open("wb") as file, contextlib.closing(transfer(url, SILENCE)) as parts:
        head = next(parts)
        if not wanted(head):
            return head
        for piece in parts:
            size += len(piece)
            if max(size, head.size or 0) > max_bytes:
                raise Refused(f"it has more than {max_bytes / 2**20:g} MB")
            if stopped():
                raise Refused("it was stopped")
            if time.monotonic() > until:
                raise Refused(f"it takes longer than {longest:g} s")
            file.write(piece)
    if head.size is not None and size < head.size:
        raise Refused(f"it was cut off after {size:,} of {head.size:,} bytes")
    return head
