"""Reading every picture once, in several processes. Only a few numbers are kept of each, so that memory stays flat."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from datasets.annotations.headers import Header, Size, read_header
from datasets.image_decoding import read_image
from datasets.splits.near_duplicates import perceptual_hash

CHUNK = 16  # pictures that a process reads at a time
AHEAD = 3  # chunks per process that are handed out in advance
MOST_WORKERS = 8
_BLOCK = 2**20  # bytes of a file that are read at a time


class Wanted(NamedTuple):
    """A picture to read."""

    path: str
    size: Size | None  # (w, h) as annotated
    max_pixels: int


class Seen(NamedTuple):
    """What one picture file says.

    Attributes:
        error: why training could not read it; empty if it could.
        size: (w, h) of what training sees; None if it cannot be read.
        header: the size as stored, and the EXIF orientation.
        digest: of the file's bytes: equal files have equal digests.
        hash: the perceptual hash; None if it cannot be read.
        is_blank: all pixels have one colour.
        notes: kind → what training notes about how it was read, such as 16 bits per channel.
    """

    error: str
    size: Size | None = None
    header: Header | None = None
    digest: bytes = b""
    hash: int | None = None
    is_blank: bool = False
    notes: tuple[tuple[str, str], ...] = ()


def look_at(wanted: Wanted) -> Seen:
    """Read one picture as training does."""
    notes: dict[str, str] = {}
    try:
        image = read_image(wanted.path, wanted.size, max_pixels=wanted.max_pixels, note=notes.__setitem__)
        header = read_header(wanted.path, wanted.max_pixels)
        digest = _digest(wanted.path)
    except (OSError, ValueError) as error:
        return Seen(str(error))
    is_blank = all(low == high for low, high in image.getextrema())
    return Seen("", image.size, header, digest, perceptual_hash(image), is_blank, tuple(notes.items()))


def scan(wanted: Sequence[Wanted], workers: int, step: Callable[[int], object] = lambda count: None) -> list[Seen]:
    """What each picture says, in the given order.

    Args:
        wanted: the pictures.
        workers: processes; 0 or 1: this one reads.
        step: called with the number of pictures that were read since the last call.
    """
    seen: list[Seen | None] = [None] * len(wanted)
    chunks = [range(start, min(start + CHUNK, len(wanted))) for start in range(0, len(wanted), CHUNK)]
    results = _here(wanted, chunks) if min(workers, len(chunks)) <= 1 else _there(wanted, chunks, workers)
    for chunk, found in results:
        for index, one in zip(chunk, found, strict=True):
            seen[index] = one
        step(len(chunk))
    return seen  # type: ignore[return-value]


def default_workers() -> int:
    """One process per processor that this one may use, at most `MOST_WORKERS`."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MOST_WORKERS)


def _look_at_all(wanted: Sequence[Wanted]) -> list[Seen]:
    return [look_at(one) for one in wanted]


def _here(wanted: Sequence[Wanted], chunks: Sequence[range]) -> Iterator[tuple[range, list[Seen]]]:
    for chunk in chunks:
        yield chunk, [look_at(wanted[index]) for index in chunk]


def _there(wanted: Sequence[Wanted], chunks: Sequence[range], workers: int) -> Iterator[tuple[range, list[Seen]]]:
    """As `_here`, in other processes and in any order. A file that ends its process is found by reading it alone."""
    waiting = list(reversed(chunks))
    while waiting:
        running: dict[Future, range] = {}
        lost: list[range] = []
        with _pool(workers) as pool:
            while waiting or running:
                while waiting and len(running) < AHEAD * workers and not lost:
                    chunk = waiting.pop()
                    try:
                        running[pool.submit(_look_at_all, [wanted[index] for index in chunk])] = chunk
                    except BrokenProcessPool:
                        lost.append(chunk)
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    chunk = running.pop(future)
                    try:
                        yield chunk, future.result()
                    except BrokenProcessPool:
                        lost.append(chunk)
        for chunk in lost:
            yield chunk, [_alone(wanted[index]) for index in chunk]


def _alone(wanted: Wanted) -> Seen:
    """Read one picture in a process of its own."""
    with _pool(1) as pool:
        try:
            return pool.submit(_look_at_all, [wanted]).result()[0]
        except BrokenProcessPool:
            return Seen(f"image file {wanted.path} ends the process that reads it: replace it, or save it anew")


def _pool(workers: int) -> ProcessPoolExecutor:
    # A forked process shares the memory of this one. Where that is not offered, it starts anew.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts_to_the_parent)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _digest(path: str | Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()
