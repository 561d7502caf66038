"""Reading YOLO's label files into COCO's form."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets.formats.faults import leave_out
from datasets.formats.pictures import first_of, image_entries, pictures_by_stem, settled_size, warn
from datasets.formats.voc.folder import two_pictures
from datasets.formats.yolo.labels import Label, annotation_of, looks_like_labels, read_labels
from datasets.formats.yolo.names import NAMES_FILES, Names
from datasets.formats.yolo.paths import Folders
from util.text import printable


@dataclass
class YoloData:
    """A data set of YOLO's. `read` returns a part of it in COCO's form.

    A class's number is its id. Pictures that carry an EXIF quarter turn are read upright, as YOLO's programs read them.

    Attributes:
        root: the folder.
        names: the classes; None if nothing states them, so that their numbers are their names.
        pictures: part → its images.
        notes: part → what should be known about it.
        folders: where labels lie.
        keypoints: numbers behind the box in each line.
        images: part → the folder that its images' file names are relative to.
    """

    root: Path
    names: Names | None
    pictures: dict[str, list[Path]]
    notes: dict[str, list[str]]
    folders: Folders
    keypoints: int = 0
    images: dict[str, Path] = field(default_factory=dict)
    _reported: set[str] = field(default_factory=set, init=False)

    def read(self, part: str) -> dict[str, Any]:
        """A part in COCO's form, see `datasets.formats.part.Part.read`; what should be known is logged once.

        Raises:
            OSError, ValueError: a label file cannot be read, or belongs to two images; the message names it and the
                line.
        """
        names = self.names or self._numbers()
        pairs = self._pairs(part)
        kept: list[tuple[Path, tuple[int, int] | None, list[Label]]] = []
        for picture, label in pairs:
            size, _ = settled_size(picture, None, upright=True)
            try:
                kept.append((picture, size, read_labels(label, names, size, self.keypoints) if label else []))
            except (OSError, ValueError) as error:
                leave_out(label, error)
        images = image_entries([picture for picture, _, _ in kept], self.images[part])
        annotations: list[dict[str, Any]] = []
        for image, (_, size, labels) in zip(images, kept, strict=True):
            if size is None:
                continue  # fractions of an image that cannot be opened; loading it will say what is wrong
            image["width"], image["height"] = size
            for label in labels:
                own = {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": names.id_of(label.number),
                }
                annotations.append(own | annotation_of(label))
        if part not in self._reported:
            self._reported.add(part)
            warn(self.root, self.notes.get(part, []) + self._notes(part, pairs))
        info = {"description": f"YOLO in {self.root.name}"}
        return {"info": info, "images": images, "annotations": annotations, "categories": names.categories()}

    def _pairs(self, part: str) -> list[tuple[Path, Path | None]]:
        """The images of a part and their label files, None where there is none."""
        stems: dict[Path, dict[str, str]] = {}
        labels: dict[Path, Path] = {}
        owners: dict[Path, Path] = {}
        pairs: list[tuple[Path, Path | None]] = []
        for picture in sorted(self.pictures[part]):
            folder = picture.parent
            if folder not in labels:
                labels[folder] = self.folders.labels_of(folder)
            where = labels[folder]
            if where not in stems:
                stems[where] = _texts(where, self.folders.names(where))
            name = stems[where].get(picture.stem)
            label = where / name if name else None
            if label in owners and owners[label].parent == folder:
                leave_out(label, two_pictures(folder, [owners[label].name, picture.name], label))
                continue
            if label in owners:
                files = f"{printable(owners[label])} and {printable(picture)}"
                leave_out(label, ValueError(f"label file {printable(label)} could belong to {files}: rename one"))
                continue
            if label:
                owners[label] = picture
            pairs.append((picture, label))
        return pairs

    def _numbers(self) -> Names:
        """Names for the classes in the label files of all parts, whose names nothing states: their numbers."""
        largest = 0
        for part in self.pictures:
            for _, label in self._pairs(part):
                try:
                    found = read_labels(label, None, None, self.keypoints) if label else []
                    largest = max([largest, *(each.number for each in found)])
                except (OSError, ValueError) as error:
                    leave_out(label, error)
        self.names = Names(self.root, {number: str(number) for number in range(largest + 1)})
        where = f"a data.yaml with `names`, or a classes.txt, in {printable(self.root)}"
        warn(self.root, [f"nothing states the names of the classes: they are named 0 to {largest}; write {where}"])
        return self.names

    def _notes(self, part: str, pairs: list[tuple[Path, Path | None]]) -> list[str]:
        """Label files that no image in the folders has: images that were lost or renamed."""
        own = {self.folders.labels_of(folder) for folder in {picture.parent for picture, _ in pairs}}
        known: dict[Path, set[str]] = {}  # folder of labels → names of the images that belong there, of any part
        for folder in {picture.parent for pictures in self.pictures.values() for picture in pictures}:
            known.setdefault(self.folders.labels_of(folder), set()).update(pictures_by_stem(self.folders.names(folder)))
        orphans = [
            labels / name
            for labels in sorted(own)
            for stem, name in _texts(labels, self.folders.names(labels)).items()
            if stem not in known[labels] and looks_like_labels(labels / name)
        ]
        notes = ["keypoints (kpt_shape) are not read, only the boxes"] if self.keypoints else []
        if orphans:
            notes.append(f"{first_of(orphans, self.root)} of the label files have no image: they are left out")
        if pairs and not any(label for _, label in pairs):
            where = self.folders.labels_of(pairs[0][0].parent)
            notes.append(
                f"none of the {len(pairs):,} images of the {part} part has a label file: they would be in "
                f"{printable(where)}"
            )
        return notes


def _texts(folder: Path, names: list[str]) -> dict[str, str]:
    """Label files by their name without suffix. One of an image called labels.jpg may have the name of a names file."""
    texts = [name for name in names if name.lower().endswith(".txt")]
    texts = [name for name in texts if name.lower() not in NAMES_FILES or looks_like_labels(folder / name)]
    return {os.path.splitext(name)[0]: name for name in texts}
