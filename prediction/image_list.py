"""The image files that a command line names, with a short name for each."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from datasets.image_files import addresses_are_not_read, is_address
from prediction.folder_search import NOT_AN_IMAGE, LeftOut, has_image_suffix, real_path, search_folder
from util.logging import get_logger
from util.text import printable

STDIN = "-"
NO_MATCH = ("pattern matches nothing", "patterns match nothing")
NO_IMAGES = ("folder has no images", "folders have no images")
NOT_SEARCHED = ("folder matches a pattern and is not searched", "folders match a pattern and are not searched")
IN_OUTPUT = ("image is in the output folder", "images are in the output folder")


def list_images(inputs: Sequence[str], leave_out: Sequence[Path] = ()) -> dict[str, Path]:
    """Find the images that `inputs` name; no file is opened. What is left out is counted and named in one warning.

    Args:
        inputs: files (with any suffix; whether they exist is not checked), folders (searched with everything below
            them and through links, see `prediction.folder_search`), patterns with `*`, `?`, `[...]` or `**`, and `-` to
            read a list from standard input, one per line. Folders and patterns give files with the suffix of a format
            that Pillow reads.
        leave_out: folders to ignore, such as those in the output folder that a job writes.

    Returns:
        Name → file, in the order of the inputs, each file once. A name is the path relative to the folder that was
        given, or the bare file name; if two names would be equal, all names are paths relative to the common folder.

    Raises:
        ValueError: no images were found, or nothing but addresses was named.
    """
    found: dict[str, tuple[Path, str]] = {}  # real path → path as given, name
    left_out = LeftOut()
    named = list(_entries(inputs))
    outside = [Path(real_path(folder)) for folder in leave_out]
    addresses = [entry for entry in named if _is_address(entry)]
    if addresses and len(addresses) == len(named):
        raise ValueError(addresses_are_not_read(addresses[0]) + f" (1 of {len(named)})" * (len(named) > 1))
    for entry in named:
        for path, name in _expand(entry, left_out, leave_out):
            real = real_path(path)
            if any(Path(real).is_relative_to(folder) for folder in outside):
                left_out.add(name, IN_OUTPUT)
            else:
                found.setdefault(real, (path, name))
    if not found:
        wanted = ", ".join(repr(printable(entry)) for entry in inputs[:3]) + ", …" * (len(inputs) > 3)
        why = f" ({left_out})" if left_out else ""
        advice = "name files, folders with images, or a quoted pattern"
        if IN_OUTPUT in left_out.names:
            advice = "choose another --out folder"
        raise ValueError(f"no images found in {wanted}{why}: {advice}")
    if left_out:
        get_logger().warning(f"left out: {left_out}")
    names = [name for _, name in found.values()]
    if len(set(names)) < len(names):
        paths = [os.path.abspath(path) for path, _ in found.values()]
        paths = paths if len(set(paths)) == len(paths) else list(found)  # ".." behind a link can hide a difference
        common = os.path.commonpath([os.path.dirname(path) for path in paths])
        names = [Path(os.path.relpath(path, common)).as_posix() for path in paths]
    # A name that no file can have stays as it was given, and reading it says what is wrong.
    files = [path if _is_address(str(path)) else Path(real) for real, (path, _) in found.items()]
    return dict(zip(names, files, strict=True))


def _entries(inputs: Iterable[str]) -> Iterator[str]:
    for entry in inputs:
        if entry == STDIN:
            # Bytes, because file names need not be valid text, and because text has more line ends than files have.
            stream = getattr(sys.stdin, "buffer", None)
            text = sys.stdin.read() if stream is None else os.fsdecode(stream.read())
            lines = (line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n"))
            yield from (line for line in lines if line.strip())
        else:
            yield entry


def _expand(entry: str, left_out: LeftOut, ignored: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    path, before = Path(entry), len(left_out)
    if os.path.isdir(entry):
        files = search_folder(path, left_out, ignored)
        if not files and len(left_out) == before:
            left_out.add(entry, NO_IMAGES)
        yield from ((file, file.relative_to(path).as_posix()) for file in files)
    elif glob.has_magic(entry) and "\0" not in entry and not os.path.lexists(entry):
        matches = _matches(entry, left_out)
        if not matches and len(left_out) == before:
            left_out.add(entry, NO_MATCH)
        yield from ((match, match.name) for match in matches)
    else:
        yield path, path.name


def _matches(pattern: str, left_out: LeftOut) -> list[Path]:
    """The image files that match a pattern, sorted."""
    parts = Path(pattern).parts
    if "**" in parts:
        return _matches_below(parts, left_out)
    found = []
    for match in sorted(map(Path, glob.glob(pattern))):
        if match.is_dir():
            left_out.add(match, NOT_SEARCHED)
        elif not has_image_suffix(match):
            left_out.add(match, NOT_AN_IMAGE)
        elif match.is_file():
            found.append(match)
    return found


def _matches_below(parts: tuple[str, ...], left_out: LeftOut) -> list[Path]:
    """As `_matches`, of a pattern with `**`; unlike `glob`, it enters no folder twice, so that no link is a trap."""
    first = parts.index("**")
    start, rest = os.path.join(*parts[:first]) if first else os.curdir, parts[first:]
    found = []
    for folder in sorted(glob.glob(start)) if glob.has_magic(start) else [start]:
        others = LeftOut()
        files = search_folder(Path(folder), others)
        found += [file for file in files if _fits(file.relative_to(folder).parts, rest)]
        for name in others.names[NOT_AN_IMAGE]:
            if _fits(Path(name).parts, rest):
                left_out.add(name, NOT_AN_IMAGE)
    return found


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _is_address(entry: str) -> bool:
    return is_address(entry) and not os.path.lexists(entry)
