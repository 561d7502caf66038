"""The image files of a data set: which of them are there, which can be read, and what takes a bad one's place."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL.Image import Image

from datasets.annotations.rules import some
from datasets.image_decoding import read_image
from util.logging import get_logger


class ImageReader:
    """Files by index, each checked to exist before the first is read.

    With `skip_bad`, a file that is missing or cannot be read is said once by its name and replaced by the next good
    one, round the end; so what comes out depends on the index alone. Workers share what they find with the process
    that started them; other processes of a distributed run count for themselves.

    Args:
        folder: where the names begin; a name may hold folders, lead out of it, or be absolute.
        names: of the files.
        sizes: (w, h) of the frames in which each image was annotated, 0 where that is not known.
        skip_bad: do without bad files.
        max_bad: how many of them at the most.

    Attributes:
        folder: as given.

    Raises:
        FileNotFoundError: files are missing; the message counts them and names the first.
        OSError: with `skip_bad`, more than `max_bad` are.
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
        self._told_of_size = False
        # In shared memory, so that no two workers count or name the same file.
        self._is_bad = torch.zeros(len(self._names), dtype=torch.bool).share_memory_()

        missing = find_missing(self.folder, self._names)
        if missing and not skip_bad:
            named = some([str(self.folder / self._names[index]) for index in missing])
            raise FileNotFoundError(
                f"{len(missing)} of {len(self._names)} listed images {'is' if len(missing) == 1 else 'are'} missing "
                f"({named}): check the image folder and the file_name entries, or pass --skip_bad_images"
            )
        self._is_bad[missing] = True
        self._refuse_too_many()
        if missing:
            get_logger().warning(f"skipping missing images: {', '.join(self.bad)}")

    @property
    def bad(self) -> list[str]:
        """The files found to be bad so far, by index."""
        return [str(self.folder / self._names[index]) for index in self._is_bad.nonzero().flatten().tolist()]

    def read(self, index: int) -> tuple[Image, int]:
        """The RGB image, and the index it has: another than asked for if that one is bad.

        Raises:
            FileNotFoundError, OSError: the file cannot be read, by its name; with `skip_bad`, too many cannot.
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
                self._refuse_too_many()
        raise OSError(f"not one of the {len(self._names)} images in {self.folder} can be read: check the folder")

    def _read(self, index: int) -> Image:
        path, annotated_size = self.folder / self._names[index], self._sizes[index]
        image = read_image(path, annotated_size if all(annotated_size) else None)
        if all(annotated_size) and image.size != annotated_size and not self._told_of_size:
            self._told_of_size = True
            get_logger().warning(
                f"{path} is {image.width}x{image.height} pixels, but its annotations were drawn on "
                f"{annotated_size[0]}x{annotated_size[1]}: its boxes may be wrong (said once)"
            )
        return image

    def _refuse_too_many(self) -> None:
        count = int(self._is_bad.sum())
        if self._skip_bad and count > self._max_bad:
            raise OSError(
                f"{count} of {len(self._names)} images are missing or cannot be read, more than --max_bad_images "
                f"{self._max_bad} ({some(self.bad)}): repair the data, or raise the limit"
            )


def find_missing(folder: Path, names: Sequence[str]) -> list[int]:
    """Indices of the `names` that are no files in `folder`, by listing folders and not by asking for each file."""
    by_folder: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        by_folder[os.path.dirname(name)].append(index)
    missing = []
    for inner, indices in by_folder.items():
        present = _files_in(folder / inner)
        missing += [index for index in indices if os.path.basename(names[index]) not in present]
    # A file system that ignores case or spells accents in its own way lists other names than it takes.
    return sorted(index for index in missing if not os.path.isfile(folder / names[index]))


def _files_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:  # no such folder, or one that may not be listed: its files are asked for one by one
        return set()
