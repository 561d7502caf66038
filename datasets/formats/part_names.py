"""Which part of a data set the names of files and folders mean."""

from __future__ import annotations

import re
from pathlib import PurePath

WORDS = {
    "train": ("train", "training", "trainset", "trainval", "trn"),
    "val": ("val", "valid", "validation", "valset", "dev"),
    "test": ("test", "testing", "testset", "tst"),
}
_PART_OF = {word: part for part, words in WORDS.items() for word in words}


def part_in(name: str) -> str | None:
    """ "train", "val" or "test" if the words of a name mean just one of them; None otherwise.

    Capital letters do not matter. Words end at digits, spaces, points, hyphens, underscores, and capital letters within
    a word: `instances_train2017` and `TrainImages` are of the training part.
    """
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    found = {_PART_OF[word.lower()] for word in words if word.lower() in _PART_OF}
    return found.pop() if len(found) == 1 else None


def part_of(path: PurePath) -> str | None:
    """The part that a path within a data set belongs to, by its last name that means one; None if none does.

    Args:
        path: relative to the data set's folder.
    """
    names = [path.stem, *(folder.name for folder in path.parents if folder.name)]
    return next((part for part in map(part_in, names) if part), None)
