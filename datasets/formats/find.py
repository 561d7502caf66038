"""Recognising the format of a data set's folder: `find_data`.

Each entry of `FORMATS` is one format: what is looked for, in words, and a function that returns the data sets of that
format in a folder, usually none or one. Such a function only looks at names and the beginnings of files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from datasets.formats.coco_files import find_coco
from datasets.formats.other_tools import other_form
from datasets.formats.part import FoundData
from datasets.formats.tree import Tree
from datasets.formats.voc.find import find_voc
from datasets.formats.voc.options import VocOptions
from datasets.formats.yolo.find import find_yolo
from util.text import printable

MOST_NAMED = 4  # kinds of files that a message names
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


class Format(NamedTuple):
    """One format.

    `find` may raise ValueError for a folder that is of this format and cannot be used.
    """

    name: str
    looked_for: str
    find: Callable[[Tree, VocOptions], list[FoundData]]


FORMATS = (
    Format(
        "COCO",
        "a JSON file with `images` and `annotations`, such as annotations/instances_train2017.json, "
        "train/_annotations.coco.json or result.json",
        lambda tree, _: find_coco(tree),
    ),
    Format("Pascal VOC", "XML files with <annotation>, such as Annotations/*.xml beside JPEGImages/", find_voc),
    Format(
        "YOLO",
        "data.yaml, obj.data, or text files of lines `class x y width height` in labels/ beside images/, or beside the "
        "images",
        lambda tree, _: find_yolo(tree),
    ),
)


def find_data(folder: str | Path, voc: VocOptions | None = None) -> FoundData:
    """The data set in a folder, whatever its format. Annotations are not read yet.

    Args:
        folder: the data set's.
        voc: how Pascal VOC is read, if it is that.

    Raises:
        FileNotFoundError, NotADirectoryError, OSError: the folder does not exist or cannot be listed.
        ValueError: no data set is found, or more than one; the message says what was looked for and what was found.
    """
    tree = Tree.of(Path(folder))
    found = [data for each in FORMATS for data in each.find(tree, voc or VocOptions())]
    if len(found) == 1:
        return found[0]
    if not found:
        looked_for = "; ".join(f"for {each.name}, {each.looked_for}" for each in FORMATS)
        raise ValueError(
            f"no data set is recognised in {printable(tree.root)}. Looked for: {looked_for}. Found: {_inventory(tree)}"
            f"{f'. {other}' if (other := other_form(tree)) else ''}"
        )
    kinds = "; ".join(f"{data.kind} ({printable(data.evidence)})" for data in found)
    raise ValueError(
        f"{printable(tree.root)} holds {len(found)} data sets: {kinds}. Pass the folder of one of them, or move the "
        "files of the other elsewhere"
    )


def _inventory(tree: Tree) -> str:
    """What a folder holds, by suffix, with the first file of each."""
    files = [folder / name for folder, names in tree.files.items() for name in names]
    if not files:
        return "no file"
    counts = Counter(file.suffix.lower() for file in files)
    first = {file.suffix.lower(): file for file in reversed(files)}
    named = [
        f"{count:,} {printable(suffix, 20) or 'without suffix'} ({tree.relative(first[suffix])})"
        for suffix, count in counts.most_common(MOST_NAMED)
    ]
    more = f" and {len(counts) - MOST_NAMED} other kinds of files" if len(counts) > MOST_NAMED else ""
    packed = tree.with_suffix(*ARCHIVES)
    unpack = f"; unpack {tree.relative(packed[0])} first" if packed else ""
    return ", ".join(named) + more + unpack
