"""The files and folders below a data set's folder, listed once and shared by all formats."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from util.loading.file_kinds import START, kind_of
from util.text import printable

DEPTH = 4  # folders below the given one
MOST_FOLDERS = 20_000  # of a data set
SKIPPED = ("__MACOSX", "__pycache__", "@eaDir")  # and hidden ones: what systems leave in folders


@dataclass(frozen=True)
class Tree:
    """What lies below `root`, at most `DEPTH` folders deep, without hidden files; links to folders are followed.

    Attributes:
        root: the folder.
        files: folder → names of its files, sorted. Folders are in sorted order, each before those in it.
    """

    root: Path
    files: dict[Path, list[str]]

    @classmethod
    def of(cls, root: Path) -> Tree:
        """List `root`. A folder that holds nothing but one folder stands for that one.

        Raises:
            NotADirectoryError, FileNotFoundError, OSError: `root` or a folder below it cannot be listed.
            ValueError: there are more than `MOST_FOLDERS` folders.
        """
        if not root.is_dir():
            if root.exists():
                with root.open("rb") as file:
                    kind = kind_of(file.read(START))
                is_packed = bool(kind) and kind.endswith("archive")
                what = f"{kind}: unpack it, and" if is_packed else f"{kind or 'a file'}:"
                raise NotADirectoryError(f"{printable(root)} is {what} pass the folder of the data set")
            raise FileNotFoundError(f"there is no folder {printable(root)}")
        tree = cls(root, _list(root))
        for _ in range(DEPTH):
            inner = [folder for folder in tree.files if folder.parent == tree.root and folder != tree.root]
            if tree.files[tree.root] or len(inner) != 1:
                break
            tree = cls(inner[0], _list(inner[0]))
        return tree

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """The files with one of these suffixes (lower case, with the point), whatever their letter case."""
        return [
            folder / name
            for folder, names in self.files.items()
            for name in names
            if os.path.splitext(name)[1].lower() in suffixes
        ]

    def relative(self, path: Path) -> str:
        """`path` below `root`, for messages."""
        return printable(path.relative_to(self.root)) if path != self.root else "."


def _list(root: Path) -> dict[Path, list[str]]:
    found: dict[Path, list[str]] = {}
    for path, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        folder = Path(path)
        folders[:] = sorted(name for name in folders if not (_is_left_by_a_system(name) or _leads_back(folder / name)))
        if len(folder.relative_to(root).parts) >= DEPTH:
            folders.clear()
        if len(found) == MOST_FOLDERS:
            raise ValueError(
                f"{printable(root)} holds more than {MOST_FOLDERS:,} folders: pass the folder of the data set itself"
            )
        found[folder] = sorted(name for name in names if not _is_left_by_a_system(name))
    return found


def _is_left_by_a_system(name: str) -> bool:
    return name.startswith(".") or name in SKIPPED


def _leads_back(folder: Path) -> bool:
    """Whether a folder is a link to one that holds it, which would be listed without end."""
    if not folder.is_symlink():
        return False
    target = Path(os.path.realpath(folder))
    return Path(os.path.realpath(folder.parent)).is_relative_to(target)


def _refuse(error: OSError) -> None:
    raise OSError(f"the folder {printable(error.filename)} cannot be listed ({error.strerror}): check its permissions")
