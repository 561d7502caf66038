"""The image files that a command line names, with a short name for each."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SUFFIXES = frozenset(".jpg .jpeg .jpe .png .bmp .gif .tif .tiff .webp .ppm .pgm .pbm .jp2 .tga .avif".split())
STDIN = "-"


def list_images(inputs: Sequence[str], leave_out: Path | None = None) -> dict[str, Path]:
    """Find the images that `inputs` name; no file is opened.

    Args:
        inputs: files (with any suffix; whether they exist is not checked), folders (searched recursively for image
            suffixes), patterns with `*`, `?`, `[...]` or `**`, and `-` to read a list from standard input, one per
            line.
        leave_out: a folder to ignore, such as the output folder.

    Returns:
        Name → file, in the order of the inputs, each file once. A name is the path relative to the folder that was
        given, or the bare file name; if two names would be equal, all names are paths relative to the common folder.

    Raises:
        ValueError: no images were found.
    """
    found: dict[Path, str] = {}  # resolved file → name
    for entry in _entries(inputs):
        for path, name in _expand(entry):
            resolved = path.resolve()
            if leave_out is None or not resolved.is_relative_to(leave_out.resolve()):
                found.setdefault(resolved, name)
    if not found:
        raise ValueError(
            f"no images found in {', '.join(map(repr, inputs))}: name files, folders with images, or a quoted pattern"
        )
    if len(set(found.values())) < len(found):
        common = Path(os.path.commonpath([path.parent for path in found]))
        found = {path: path.relative_to(common).as_posix() for path in found}
    return {name: path for path, name in found.items()}


def _entries(inputs: Iterable[str]) -> Iterator[str]:
    for entry in inputs:
        if entry == STDIN:
            yield from (line for line in sys.stdin.read().splitlines() if line.strip())
        else:
            yield entry


def _expand(entry: str) -> Iterator[tuple[Path, str]]:
    path = Path(entry)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            inner = file.relative_to(path)
            hidden = any(part.startswith(".") for part in inner.parts)
            if file.suffix.lower() in SUFFIXES and not hidden and file.is_file():
                yield file, inner.as_posix()
    elif glob.has_magic(entry) and not path.exists():
        for match in sorted(glob.glob(entry, recursive=True)):
            if Path(match).suffix.lower() in SUFFIXES and Path(match).is_file():
                yield Path(match), Path(match).name
    else:
        yield path, path.name
