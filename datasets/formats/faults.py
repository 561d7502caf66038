"""Annotation files that cannot be used, where a data set has one for each image: the first is an error.

A check of the whole data set collects them instead, and reads the rest:

    with collected_faults() as faults:
        data = part.read()
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple


class Fault(NamedTuple):
    """A file that was left out, and why."""

    path: Path
    error: OSError | ValueError


_collected: ContextVar[list[Fault] | None] = ContextVar("collected faults", default=None)


@contextmanager
def collected_faults() -> Iterator[list[Fault]]:
    """Context in which `leave_out` collects; gives the list."""
    faults: list[Fault] = []
    token = _collected.set(faults)
    try:
        yield faults
    finally:
        _collected.reset(token)


def leave_out(path: Path, error: OSError | ValueError) -> None:
    """To be called where a file cannot be used: raises `error`, or notes it where faults are collected."""
    faults = _collected.get()
    if faults is None:
        raise error
    faults.append(Fault(path, error))
