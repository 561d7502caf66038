"""Reading the image files of a data set by index: missing files are found first, bad ones skipped on request."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL.Image import Image

from datasets.annotations.file_names import hint_at
from datasets.annotations.rules import preview
from datasets.image_decoding import read_image
from util.errors import OpenFilesError
from util.logging import get_logger
from util.settings import MAX_PIXELS
from util.text import printable

NOTES = ("size", "depth", "colours", "frames")  # kinds of notes on how an image was read, each reported once


class ImageReader:
    """Reads images by index; on construction, checks that all files exist.

    With `skip_bad`, a file that is missing or cannot be read is reported once and replaced by the next good one,
    wrapping around at the end, so the result depends only on the index. Data loader workers share the list of bad files
    and what has been reported with the process that started them; each process of a distributed run keeps its own.

    Args:
        folder: the folder that the names are relative to; a name may contain folders, leave it, or be absolute.
        names: the file names.
        sizes: (w, h) in pixels of each image as annotated, 0 if unknown.
        skip_bad: replace bad files instead of raising.
        max_bad: the largest number of bad files allowed with `skip_bad`.
        max_pixels: a file with more pixels counts as bad.

    Attributes:
        folder, max_pixels: as given.

    Raises:
        FileNotFoundError: files are missing; the message gives their number and the first names.
        OSError: with `skip_bad`, more than `max_bad` files are missing.
    """

    def __init__(
        self,
        folder: str | Path,
        names: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        *,
        skip_bad: bool = False,
        max_bad: int = 10,
        max_pixels: int = MAX_PIXELS,
    ):
        self.folder = Path(folder)
        self.max_pixels = max_pixels
        self._names = list(names)
        self._sizes = list(sizes)
        self._skip_bad = skip_bad
        self._max_bad = max_bad
        # In shared memory, so that no two workers count or report the same.
        self._is_bad = torch.zeros(len(self._names), dtype=torch.bool).share_memory_()
        self._is_reported = torch.zeros(len(NOTES), dtype=torch.bool).share_memory_()

        missing = find_missing(self.folder, self._names)
        if missing and not skip_bad:
            names = [self._names[index] for index in missing]
            named = preview([printable(self.folder / name) for name in names])
            raise FileNotFoundError(
                f"{len(missing)} of {len(self._names)} listed images {'is' if len(missing) == 1 else 'are'} missing "
                f"({named}); {hint_at(self.folder, names)}. Check the image folder and the file_name entries, or pass "
                "--skip_bad_images"
            )
        self._is_bad[missing] = True
        self._check_limit()
        if missing:
            get_logger().warning(f"skipping missing images: {', '.join(self.bad)}")

    @property
    def bad(self) -> list[str]:
        """Paths of the bad files found so far, in the order of their indices."""
        return [str(self.folder / self._names[index]) for index in self._is_bad.nonzero().flatten().tolist()]

    def read(self, index: int) -> tuple[Image, int]:
        """The RGB image and its index, which is that of the replacement if the requested file is bad.

        Raises:
            FileNotFoundError, OSError: the file cannot be read, or, with `skip_bad`, more than `max_bad` cannot.
            OpenFilesError: too many files are open; no file is to blame.
        """
        if not self._skip_bad:
            try:
                return self._read(index), index
            except OpenFilesError:
                raise
            except OSError as error:
                raise type(error)(f"{error}, or pass --skip_bad_images") from error.__cause__
        for candidate in (*range(index, len(self._names)), *range(index)):
            if self._is_bad[candidate]:
                continue
            try:
                return self._read(candidate), candidate
            except OpenFilesError:
                raise
            except OSError as error:
                self._is_bad[candidate] = True
                get_logger().warning(f"skipping {error}")
                self._check_limit()
        raise OSError(f"none of the {len(self._names)} images in {self.folder} can be read: check the folder")

    def _read(self, index: int) -> Image:
        path, annotated_size = self.folder / self._names[index], self._sizes[index]
        size = annotated_size if all(annotated_size) else None
        image = read_image(path, size, max_pixels=self.max_pixels, note=self._note)
        if size is not None and image.size != size:
            self._note(
                "size",
                f"{path} is {image.width}x{image.height} pixels, but its annotations are for {size[0]}x{size[1]}: its "
                "boxes may be wrong",
            )
        return image

    def _note(self, kind: str, sentence: str) -> None:
        index = NOTES.index(kind)
        if not self._is_reported[index]:
            self._is_reported[index] = True
            get_logger().warning(f"{sentence} (reported once)")

    def _check_limit(self) -> None:
        count = int(self._is_bad.sum())
        if self._skip_bad and count > self._max_bad:
            raise OSError(
                f"{count} of {len(self._names)} images are missing or cannot be read, more than --max_bad_images "
                f"{self._max_bad} ({preview(self.bad)}): repair the data, or raise the limit"
            )


def find_missing(folder: Path, names: Sequence[str]) -> list[int]:
    """Indices of the `names` that are not files in `folder`; lists each folder once instead of checking every file."""
    by_folder: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        by_folder[os.path.dirname(name)].append(index)
    missing = []
    for inner, indices in by_folder.items():
        present = _files_in(folder / inner)
        missing += [index for index in indices if os.path.basename(names[index]) not in present]
    # A file system that ignores case or normalises accents accepts other names than it lists.
    return sorted(index for index in missing if not os.path.isfile(folder / names[index]))


def _files_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):  # no such folder, or no permission to list it: its files are checked one by one
        return set()
