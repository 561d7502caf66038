"""The folder that a conversion writes: complete or not there, with the images copied or linked."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from util.text import printable


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Context with a temporary folder beside `out`; at its end it becomes `out`, after an error it is removed.

    Raises:
        ValueError: `out` exists and is no empty folder.
        OSError: the folder cannot be written.
    """
    if os.path.lexists(out) and (out.is_symlink() or not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{printable(out)} already exists: choose a new folder")
    absolute = Path(os.path.abspath(out))
    absolute.parent.mkdir(parents=True, exist_ok=True)
    temporary = absolute.parent / f".detr-{uuid.uuid4().hex[:8]}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, absolute)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def place_pictures(files: Iterable[tuple[Path, Path]], *, link: bool) -> None:
    """Copy or link images.

    Args:
        files: (the image, its new path); a path may be there already if it is the same image twice.
        link: make symbolic links, which need the image where it is.

    Raises:
        OSError: a file cannot be read or written, or there are no links in this folder.
    """
    for source, target in tqdm(list(files), desc="images", disable=None):
        if os.path.lexists(target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if not link:
            shutil.copyfile(source, target)
            continue
        try:
            os.symlink(os.path.abspath(source), target)
        except OSError as error:
            raise OSError(
                f"links cannot be made in {printable(target.parent)} ({error.strerror}): pass --copy"
            ) from None
