"""Reading the image files of a data set by index: missing files are found first, bad ones skipped on request."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL.Image import Image

from datasets.annotations.rules import preview
from datasets.image_decoding import read_image
from util.logging import get_logger


class ImageReader:
    """Reads images by index; on construction, checks that all files exist.

    With `skip_bad`, a file that is missing or cannot be read is reported once and replaced by the next good one,
    wrapping around at the end, so the result depends only on the index. Data loader workers share the list of bad files
    with the process that started them; each process of a distributed run keeps its own.

    Args:
        folder: the folder that the names are relative to; a name may contain folders, leave it, or be absolute.
        names: the file names.
        sizes: (w, h) in pixels of each image as annotated, 0 if unknown.
        skip_bad: replace bad files instead of raising.
        max_bad: the largest number of bad files allowed with `skip_bad`.

    Attributes:
        folder: as given.

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
    ):
        self.folder = Path(folder)
        self._names = list(names)
        self._sizes = list(sizes)
        self._skip_bad = skip_bad
        self._max_bad = max_bad
        self._warned_of_size = False
        # In shared memory, so that no two workers count or report the same file.
        self._is_bad = torch.zeros(len(self._names), dtype=torch.bool).share_memory_()

        missing = find_missing(self.folder, self._names)
        if missing and not skip_bad:
            named = preview([str(self.folder / self._names[index]) for index in missing])
            raise FileNotFoundError(
                f"{len(missing)} of {len(self._names)} listed images {'is' if len(missing) == 1 else 'are'} missing "
                f"({named}): check the image folder and the file_name entries, or pass --skip_bad_images"
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
        """
        if not self._skip_bad:
            return self._read(index), index
        for candidate in (*range(index, len(self._names)), *range(index)):
            if self._is_bad[candidate]:
                continue
            try:
                return self._read(candidate), candidate
            except OSError as error:
                self._is_bad[candidate] = True
                get_logger().warning(f"skipping {error}")
                self._check_limit()
        raise OSError(f"none of the {len(self._names)} images in {self.folder} can be read: check the folder")

    def _read(self, index: int) -> Image:
        path, annotated_size = self.folder / self._names[index], self._sizes[index]
        image = read_image(path, annotated_size if all(annotated_size) else None)
        if all(annotated_size) and image.size != annotated_size and not self._warned_of_size:
            self._warned_of_size = True
            get_logger().warning(
                f"{path} is {image.width}x{image.height} pixels, but its annotations are for "
                f"{annotated_size[0]}x{annotated_size[1]}: its boxes may be wrong (reported once)"
            )
        return image

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
    except OSError:  # no such folder, or no permission to list it: its files are checked one by one
        return set()
