"""The names of YOLO's classes, and the files that state them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.annotations.rules import LARGEST_CATEGORY_ID
from datasets.formats.text_files import read_text
from util.text import printable

LARGEST_NAMES = 2**22  # bytes
# Beside pictures, labels or both, as labelling programs, darknet and Roboflow write them.
NAMES_FILES = ("classes.txt", "obj.names", "_darknet.labels", "classes.names", "labels.txt", "class_names.txt")
NAMES_FILES += ("predefined_classes.txt",)


@dataclass(frozen=True)
class Names:
    """The classes of a data set.

    Attributes:
        source: the file that states them, for messages.
        of_class: class number in label files → name.
        ids: class number → id in COCO's form, if it is not the number itself.
    """

    source: Path
    of_class: dict[int, str]
    ids: dict[int, int] | None = None

    def categories(self) -> list[dict[str, int | str]]:
        """As in COCO, in the order of the class numbers."""
        return [{"id": self.id_of(number), "name": name} for number, name in sorted(self.of_class.items())]

    def id_of(self, number: int) -> int:
        return self.ids[number] if self.ids else number


def numbered(source: Path, names: Sequence[str]) -> Names:
    """Names in the order of their numbers, from 0.

    Raises:
        ValueError: there are none, or more than the class head can have.
    """
    if not names:
        raise ValueError(f"{printable(source)} states no name of a class: write one in each line, in the labels' order")
    if len(names) > LARGEST_CATEGORY_ID + 1:
        raise ValueError(f"{printable(source)} states {len(names):,} names, more than {LARGEST_CATEGORY_ID + 1:,}")
    return Names(source, dict(enumerate(names)))


def read_names(path: Path) -> Names:
    """The names in a file with one in each line.

    Raises:
        OSError, ValueError: it cannot be read or states none.
    """
    lines = [line.strip() for line in read_text(path, "file of names", LARGEST_NAMES).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return numbered(path, lines)


def common_names(files: Sequence[Path]) -> Names | None:
    """The names that all of these files state; None if there is no file.

    Raises:
        OSError, ValueError: a file cannot be read, or two state different names.
    """
    found = [read_names(file) for file in files]
    for other in found[1:]:
        if other.of_class != found[0].of_class:
            raise ValueError(
                f"{printable(found[0].source)} and {printable(other.source)} state different names of classes: the "
                "class numbers in the label files would mean two things; keep one of them"
            )
    return found[0] if found else None
