"""Listed files that are missing: where they probably are, so that the message can name the remedy."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from util.text import printable

MOST_FILES = 200_000  # of the folder that are looked through
MOST_NAMES = 1000  # missing names that are looked for
DEEPEST = 60  # folders of a missing name that may be the ones above the given folder
NEIGHBOURS = 50  # folders beside the given one that are tried


def hint_at(folder: Path, missing: Sequence[str]) -> str:
    """What is known about files that `folder` lacks, as a clause for the message; it may be empty.

    The names are compared with the files below the folder: with `/` for backslashes, without leading folders, with
    %-escapes resolved, in another letter case, Unicode form or suffix, in a folder further down, and beside the folder.

    Args:
        folder: the folder that the names are relative to.
        missing: names that are not there.
    """
    wanted = list(missing[:MOST_NAMES])
    beside = _folder_beside(folder, wanted)
    if beside:
        return f"they are in {printable(beside)}: pass that folder"
    files = _Files(folder)
    if not files.names:
        return f"the folder {printable(folder)} {'holds no file' if folder.is_dir() else 'does not exist'}"
    found = [(name, *match) for name in wanted if (match := files.find(name))]
    if not found:
        more = "more than " * (len(files.names) == MOST_FILES)
        count = f"{more}{len(files.names):,} file{'s' * (len(files.names) > 1)}"
        return f"the folder holds {count} of other names, such as {printable(files.names[0])}"
    name, actual, reasons = found[0]
    if len(found) == len(missing):
        which = "it is" if len(found) == 1 else "they are"
    else:
        which = f"{len(found)} of {len(wanted)} of them {'is' if len(found) == 1 else 'are'}"
    return (
        f"{which} there under another name, such as '{printable(actual)}' for '{printable(name)}' "
        f"({', '.join(reasons)}): write the names in the annotation file as they are in {printable(folder)}"
    )


class _Files:
    """The files below a folder, found by similar names."""

    def __init__(self, folder: Path):
        self.names = sorted(_walk(folder))
        self._exact = set(self.names)
        self._by_path: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._by_base: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            self._by_path[_key(name)].append(name)
            self._by_base[_key(os.path.basename(name))].append(name)
            self._by_stem[_key(os.path.splitext(os.path.basename(name))[0])].append(name)

    def find(self, name: str) -> tuple[str, list[str]] | None:
        """The file that a missing name means, and why the name does not match; None if no file or several could be."""
        for plain in dict.fromkeys((name.replace("\\", "/"), unquote(name.replace("\\", "/")))):
            parts = [part for part in plain.split("/") if part not in ("", ".", "..") and not re.match(r"^\w:$", part)]
            for start in range(max(0, len(parts) - DEEPEST), len(parts)):
                tail = "/".join(parts[start:])
                match = [tail] if tail in self._exact else self._by_path.get(_key(tail), [])
                if len(match) == 1:
                    return match[0], _reasons(name, plain, match[0])
            base = parts[-1] if parts else ""
            for match in (
                self._by_base.get(_key(base), []),
                self._by_stem.get(_key(os.path.splitext(base)[0]), []),
            ):
                if len(match) == 1:
                    return match[0], _reasons(name, plain, match[0])
        return None


def _reasons(name: str, plain: str, actual: str) -> list[str]:
    """In what a listed name differs from that of the file."""
    base, actual_base = plain.split("/")[-1], actual.split("/")[-1]
    same_form = unicodedata.normalize("NFC", base), unicodedata.normalize("NFC", actual_base)
    reasons = {
        "backslashes": "\\" in name,
        "%-escapes": plain != name.replace("\\", "/"),
        "other folders": [part for part in plain.split("/")[:-1] if part != "."] != actual.split("/")[:-1],
        "letter case": same_form[0] != same_form[1] and _key(base) == _key(actual_base),
        "another Unicode form of the accents": base != actual_base and same_form[0] == same_form[1],
        "another suffix": _key(base) != _key(actual_base),
    }
    return [reason for reason, holds in reasons.items() if holds]


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _walk(folder: Path) -> Iterator[str]:
    """Names of files below `folder` relative to it, with `/`; links to folders are not followed."""
    count = 0
    for path, folders, files in os.walk(folder):
        folders.sort()
        inner = os.path.relpath(path, folder).replace(os.sep, "/")
        for file in files:
            if count == MOST_FILES:
                return
            count += 1
            yield file if inner == "." else f"{inner}/{file}"


def _folder_beside(folder: Path, names: Sequence[str]) -> Path | None:
    """The folder above or beside the given one that holds all of these names."""
    above = Path(os.path.abspath(folder)).parent
    try:
        beside = sorted(entry.path for entry in os.scandir(above) if entry.is_dir())[:NEIGHBOURS]
    except OSError:
        beside = []
    for other in (above, *map(Path, beside)):
        if all(os.path.isfile(other / name) for name in names):
            return other
    return None
