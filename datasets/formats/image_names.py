"""Where the images of a COCO file are, and which of its names for them is that of the file.

Tools write names for the machine that they ran on: `images\\\\7f3a-cell.jpg`, `/data/upload/3/7f3a-cell.jpg`,
`/data/local-files/?d=cells/a%20b.jpg`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from datasets.annotations.file_names import hint_at
from datasets.formats.part_names import part_in, part_of
from datasets.formats.tree import Tree
from util.text import printable

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages", "pictures", "photos", "data")
MOST_FOLDERS = 500  # that are tried
DEEPEST = 12  # leading folders of a name that may be left out
LOCAL_FILES = "?d="  # Label Studio's address of a file on disk


@dataclass(frozen=True)
class NameRule:
    """How a file's name follows from the listed one. Without arguments, it is the listed one.

    Attributes:
        slashes: backslashes are slashes.
        unquoted: %-escapes are resolved, and what precedes Label Studio's `?d=` is left out.
        leading: the number of leading folders that are left out.
    """

    slashes: bool = False
    unquoted: bool = False
    leading: int = 0

    @property
    def is_identity(self) -> bool:
        return self == NameRule()

    def __call__(self, name: str) -> str:
        if self.unquoted:
            name = unquote(name.partition(LOCAL_FILES)[2] or name)
        if self.slashes:
            name = name.replace("\\", "/")
        if self.leading:
            parts = [part for part in name.split("/") if part not in ("", ".", "..")]
            name = "/".join(parts[min(self.leading, len(parts) - 1) :]) if parts else name
        return name


RULES = (
    NameRule(),
    NameRule(slashes=True),
    *(NameRule(slashes=True, leading=count) for count in range(1, DEEPEST + 1)),
    *(NameRule(slashes=True, unquoted=True, leading=count) for count in range(DEEPEST + 1)),
)


def locate_images(tree: Tree, file: Path, names: Sequence[str], part: str | None) -> tuple[Path, NameRule]:
    """The folder of a COCO file's images, and how their names follow from the listed ones.

    Args:
        tree: the data set.
        file: the COCO file.
        names: some of the names that it lists.
        part: that the file is of, if its name tells. Folders of another part do not count.

    Raises:
        ValueError: no folder holds one of the files, or several do and none is preferred by its name.
    """
    preferred, others = _folders(tree, file, part)
    if not names:
        return (preferred or [file.parent])[0], NameRule()
    best: tuple[int, Path, NameRule] | None = None
    for rule in RULES:
        wanted = [rule(name) for name in names]
        for folders in (preferred, others):
            hits = [(sum(os.path.isfile(folder / name) for name in wanted), folder) for folder in folders]
            complete = [folder for count, folder in hits if count == len(names)]
            if len(complete) > 1 and folders is others:
                listed = ", ".join(tree.relative(folder) for folder in complete[:4])
                raise ValueError(
                    f"the images of {printable(file)} can be in several folders: {listed}. Name the right one `images`"
                    f"{f' or after the part {part}' if part else ''}, or move the others elsewhere"
                )
            if complete:
                return complete[0], rule
            for count, folder in hits:
                if count and (best is None or count > best[0]):
                    best = (count, folder, rule)
    if best is None:
        raise ValueError(
            f"{printable(file)} lists images such as '{printable(names[0])}', but no folder below "
            f"{printable(tree.root)} holds one: put the images beside the file, or into a folder `images` "
            f"({hint_at(tree.root, names)})"
        )
    return best[1:]


def _folders(tree: Tree, file: Path, part: str | None) -> tuple[list[Path], list[Path]]:
    """The folders that may hold the images of `file`: those that are preferred by their names, and the others."""
    subset = file.stem.removeprefix("instances_")  # CVAT's name of the part, such as "default"
    preferred = [file.parent]
    for root in dict.fromkeys((file.parent, file.parent.parent)):
        for name in IMAGE_FOLDERS:
            preferred += [root / name / subset, root / name]
        preferred += [root / file.stem, root / subset]
    usable = [folder for folder in tree.files if part_of(folder.relative_to(tree.root)) in (None, part)]
    if part:
        preferred[1:1] = [folder for folder in usable if part_in(folder.name) == part]
    usable_set = set(usable)
    preferred = [folder for folder in dict.fromkeys(preferred) if folder in usable_set]
    others = [folder for folder in usable if folder not in set(preferred)]
    return preferred, others[:MOST_FOLDERS]
