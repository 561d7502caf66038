"""Where the paths in YOLO's files lead, which were often written for another machine, and where labels lie."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from datasets.formats.pictures import is_picture
from datasets.formats.tree import Tree
from util.text import printable

IMAGES = ("images", "image", "imgs", "img", "jpegimages")  # a folder's name, for which labels have `labels`
LABELS = ("labels", "label")
DEEPEST = 30  # folders of a path that may be missing here


def resolve(text: str, bases: Sequence[Path], root: Path) -> Path | None:
    """The file or folder that a path means; None if it is not there.

    Tried are the path as it is, with `/` for backslashes, without `../` before it, as Roboflow writes it, and its end
    below `root`, as in `/content/drive/cells/train/images` or `data/obj_train_data/a.jpg`.

    Args:
        text: the path as written.
        bases: what it may be relative to, in this order.
        root: the data set's folder.
    """
    for spelling in dict.fromkeys((text, text.replace("\\", "/"))):
        for base in bases:
            for each in (spelling, re.sub(r"^(\.\./)+", "", spelling)):
                path = os.path.normpath(base / each) if "\0" not in each else ""
                if path and os.path.exists(path):
                    return Path(path)
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for start in range(max(0, len(parts) - DEEPEST), len(parts)):
        path = root.joinpath(*parts[start:])
        if os.path.exists(path):
            return path
    return None


class Folders:
    """The folders of pictures and labels of a data set, each listed once.

    Args:
        tree: the data set; other folders are listed when they are asked for.
    """

    def __init__(self, tree: Tree):
        self.tree = tree
        self._files = dict(tree.files)

    def names(self, folder: Path) -> list[str]:
        """The names of the files in a folder, sorted; none if there is no folder.

        Raises:
            OSError: it cannot be listed.
        """
        if folder not in self._files:
            below = self.below(folder) if folder.is_dir() else {}
            self._files[folder] = below.get(folder, [])
        return self._files[folder]

    def below(self, folder: Path) -> dict[Path, list[str]]:
        """The files of a folder and of those in it.

        Raises:
            OSError: they cannot be listed.
            ValueError: it is the whole disk.
        """
        if folder == Path(folder.anchor):
            raise ValueError(f"{printable(folder)} is the whole disk, no folder of images: correct the path")
        if folder in self.tree.files:
            return {each: names for each, names in self.tree.files.items() if each.is_relative_to(folder)}
        return Tree.of(folder).files

    def pictures(self, folder: Path) -> list[str]:
        """The names of the images in a folder."""
        return [name for name in self.names(folder) if is_picture(name)]

    def labels_of(self, folder: Path) -> Path:
        """The folder of the labels of a folder of pictures.

        The last `images` in the path is `labels` there; without such a folder, it is `labels` in this folder or beside
        it, or this folder itself.
        """
        parts = folder.parts
        for place in reversed(range(len(parts))):
            if parts[place].lower() in IMAGES:
                for name in LABELS:
                    for depth in range(len(parts), place, -1):  # labels/train of images/train, or labels for all
                        found = self._existing(Path(*parts[:place]), name, parts[place + 1 : depth])
                        if found:
                            return found
        for above in (folder, folder.parent):
            for name in LABELS:
                found = self._existing(above, name, ())
                if found and found.is_relative_to(self.tree.root):
                    return found
        return folder

    def _existing(self, above: Path, name: str, below: Sequence[str]) -> Path | None:
        """The folder above/name/below, whatever the case of `name`."""
        for spelling in (name, name.capitalize(), name.upper()):
            folder = above.joinpath(spelling, *below)
            if folder in self._files or folder.is_dir():
                return folder
        return None
