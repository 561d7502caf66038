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
    temporary = absolute.parent / f".detr-{uuid.uuid4().hex[:8]}.tmp"
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        where = printable(absolute.parent)
        raise OSError(f"no folder can be made in {where} ({error.strerror}): choose another") from None
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
        try:
            if link:
                os.symlink(os.path.abspath(source), target)
            else:
                shutil.copyfile(source, target)
        except OSError as error:
            what, advice = ("linked", "pass --copy") if link else ("copied", "check the permissions and the space")
            reason = error.strerror or printable(error)
            raise OSError(f"the image {printable(source)} cannot be {what} ({reason}): {advice}") from None
