"""A data set as it was found on disk: its format, its parts, and how each part is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from util.text import printable

NAMES = ("train", "val", "test")  # of parts, in this order
NAMED_CLASSES = 5  # class names that the one-line description lists


@dataclass
class Part:
    """One part of a data set, such as the training data. Nothing is read before `read`.

    Attributes:
        images: the folder that the images' file names are relative to.
        source: what messages name: the annotation file, or the folder of the label files.
        reader: returns what `read` does. It can be pickled: a function of a module, or a `functools.partial` of one.
        counts: of the last `read`; None before it.
    """

    images: Path
    source: Path
    reader: Callable[[], dict[str, Any]]
    counts: Counts | None = field(default=None, init=False)

    def read(self) -> dict[str, Any]:
        """The part in COCO's form: the lists `images`, `annotations` and `categories`.

        Images have an `id` and a `file_name` relative to the folder `images`; annotations an `id`, `image_id`,
        `category_id` and `bbox` [x, y, width, height] in pixels; categories an `id` and a `name`. Entries of COCO files
        are not checked yet: `datasets.annotations.instances.read_coco` does that, for every format.

        Raises:
            OSError, ValueError: something cannot be read; the message names the file.
        """
        data = self.reader()
        names = [category.get("name") for category in data["categories"] if isinstance(category, dict)]
        self.counts = Counts(len(data["images"]), len(data["annotations"]), [str(name) for name in names])
        return data


@dataclass(frozen=True)
class Counts:
    """What a part holds."""

    images: int
    objects: int
    classes: list[str]  # names, in the order of the categories


@dataclass(frozen=True)
class FoundData:
    """A data set that `datasets.formats.find.find_data` recognised.

    Attributes:
        kind: the name of the format, such as "Roboflow COCO" or "YOLO".
        root: the folder.
        parts: those of "train", "val" and "test" that it has.
        evidence: the file or folder by which it was recognised, for messages.
        undivided: the folder tells no parts apart: all its images are under "train".
        unusable: what is wrong with the parts that are there, or are stated, and cannot be used, by name.
        ids_from_names: the format has no class ids: they were given out by the names of the classes.
    """

    kind: str
    root: Path
    parts: dict[str, Part]
    evidence: Path
    undivided: bool = False
    unusable: dict[str, str] = field(default_factory=dict)
    ids_from_names: bool = False

    def sentence(self) -> str:
        """The format and the folder in one line, with the counts of the parts that were read."""
        described, unread = [], []
        for name in sorted(self.parts, key=_order):
            counts = self.parts[name].counts
            name = "all" if self.undivided else name
            if counts is None:
                unread.append(name)
            else:
                described.append(f"{name} {_count(counts.images, 'image')}, {_count(counts.objects, 'object')}")
        classes = next((part.counts.classes for part in self.parts.values() if part.counts), None)
        if classes is not None:
            listed = ", ".join(printable(name, 40) for name in classes[:NAMED_CLASSES])
            more = ", …" if len(classes) > NAMED_CLASSES else ""
            described.append(f"{_count(len(classes), 'class', 'classes')} ({listed}{more})")
        if self.unusable:
            described.append(f"cannot be used: {', '.join(self.unusable)}")
        if unread:
            described.append(f"not read: {', '.join(unread)}")
        return f"{self.kind} in {printable(self.root)}: {'; '.join(described)}"


def _order(name: str) -> int:
    return NAMES.index(name) if name in NAMES else len(NAMES)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
