"""The images in a folder and below it, through links too, and a count of everything else."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from datasets.image_files import image_suffixes
from prediction.job_record import FOLDERS, PROGRESS, holds_job
from util.text import printable, shorten

NAMED = 5  # of each kind of what is left out, the most names in the sentence

# Why something is left out, for one and for several.
NOT_AN_IMAGE = ("file is not an image that Pillow reads", "files are not images that Pillow reads")
HIDDEN = ("hidden file or folder", "hidden files or folders")
LEADS_NOWHERE = ("link leads nowhere", "links lead nowhere")
NOT_A_FILE = ("pipe, socket or device", "pipes, sockets or devices")
NOT_LISTED = ("folder cannot be read", "folders cannot be read")
RESULTS = ("folder has results of predict.py", "folders have results of predict.py")
FOLDER_TWICE = ("link leads to a folder that is searched anyway", "links lead to folders that are searched anyway")
FILE_TWICE = ("link leads to an image that is listed anyway", "links lead to images that are listed anyway")


class LeftOut:
    """What a search did not take, by reason."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, str], list[str]] = defaultdict(list)

    def add(self, name: str | Path, reason: tuple[str, str]) -> None:
        """Count `name` under a reason, such as `HIDDEN`."""
        self.names[reason].append(str(name))

    def __len__(self) -> int:
        return sum(map(len, self.names.values()))

    def __str__(self) -> str:
        """Such as "2 files are not images that Pillow reads (a.heic, b.txt); 1 link leads nowhere (c.png)"."""
        parts = []
        for (one, several), names in self.names.items():
            shown = ", ".join(shorten(printable(name, 4096), 80) for name in names[:NAMED]) + ", …" * (
                len(names) > NAMED
            )
            parts.append(f"{len(names):,} {one if len(names) == 1 else several} ({shown})")
        return "; ".join(parts)


def has_image_suffix(name: str | Path) -> bool:
    """True if Pillow reads files of this suffix, in upper or lower case."""
    return Path(name).suffix.lower() in image_suffixes()


def real_path(path: str | os.PathLike[str]) -> str:
    """The absolute path without links; just the absolute path if no file can have that name."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return os.path.abspath(path)


def search_folder(folder: Path, left_out: LeftOut, ignored: Sequence[Path] = ()) -> list[Path]:
    """The image files in `folder` and below it, sorted, as paths that begin with `folder`.

    Links to files and folders are followed and keep the link's name. What several paths lead to is listed once, under
    the path without links if there is one. Hidden files and folders (".name") are left out, and so are pictures that
    `predict.py` has made of other images.

    Args:
        folder: the folder.
        left_out: takes what is not listed, with paths relative to `folder`.
        ignored: folders and other files that are passed over without a word, such as those of the output folder.
    """
    files, links = [], []  # (path, real path)
    for path, real, is_link in _walk(folder, left_out, set(map(real_path, ignored))):
        (links if is_link else files).append((path, real))
    found: dict[str, Path] = {}  # real path → path
    for path, real in (*sorted(files), *sorted(links)):
        if real in found:
            left_out.add(path.relative_to(folder), FILE_TWICE)
        found.setdefault(real, path)
    return sorted(found.values())


def _walk(folder: Path, left_out: LeftOut, ignored: Collection[str]) -> Iterator[tuple[Path, str, bool]]:
    """(path, real path, whether it is a link) of every image file; the folders that links lead to come last."""
    entered: set[tuple[int, int]] = set()  # (device, inode) of folders
    waiting, behind_links = [folder], []
    while waiting or behind_links:
        current = waiting.pop() if waiting else behind_links.pop(0)
        real = real_path(current)
        if real in ignored:
            continue
        try:
            status = os.stat(current)
            if (status.st_dev, status.st_ino) in entered:
                left_out.add(current.relative_to(folder), FOLDER_TWICE)
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(current) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            name = current.relative_to(folder) if current != folder else folder
            left_out.add(f"{name}: {error.strerror}", NOT_LISTED)
            continue
        has_results = any(entry.name == PROGRESS for entry in entries) and holds_job(current)
        for entry in entries:
            path, is_link, kind = current / entry.name, entry.is_symlink(), _kind(entry)
            if entry.name.startswith("."):
                if kind == "folder" or has_image_suffix(entry.name):
                    left_out.add(path.relative_to(folder), HIDDEN)
            elif kind == "folder" and has_results and entry.name in FOLDERS:
                if real_path(path) not in ignored:
                    left_out.add(path.relative_to(folder), RESULTS)
            elif kind == "folder":
                (behind_links if is_link else waiting).append(path)
            elif kind == "nothing":
                left_out.add(path.relative_to(folder), LEADS_NOWHERE)
            elif kind == "other":
                left_out.add(path.relative_to(folder), NOT_A_FILE)
            elif not has_image_suffix(entry.name):
                if real_path(path) not in ignored:
                    left_out.add(path.relative_to(folder), NOT_AN_IMAGE)
            else:
                yield path, real_path(path) if is_link else os.path.join(real, entry.name), is_link


def _kind(entry: os.DirEntry[str]) -> str:
    """What an entry is, or what its link leads to: "folder", "file", "other" (such as a pipe), or "nothing"."""
    if not entry.is_symlink():
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    try:
        mode = entry.stat().st_mode
    except OSError:  # also a loop of links, or no permission
        return "nothing"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
