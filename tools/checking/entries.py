"""A part of a data set in COCO's form → the entries that can be used, and a finding for those that cannot.

Every rule is that of training (`datasets.annotations.rules`), applied to one entry at a time where the whole list
fails, so that nothing hides behind the first fault.

`P` pictures, `N` objects of a part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotations.instances import name_categories, tidy_sizes
from datasets.annotations.relatives import translate
from datasets.annotations.rules import Annotation, check_annotations, check_categories, check_images, short
from tools.checking.findings import Finding, Level, Place, agreeing, finding, has, of_all

_LARGEST_LIST = 4096  # entries that are checked together before the list is halved


@dataclass
class PartData:
    """The usable entries of a part.

    Attributes:
        name: "train", "val" or "test".
        folder: what the pictures' file names are relative to.
        root: the data set's folder, which files are named relative to.
        source: the annotation file, or the folder of label files, relative to `root`.
        images, categories: entries of COCO's form, with valid and unique ids, as are all below.
        annotations: of pictures that are listed.
        sizes: (w, h) of each picture in pixels, [P, 2]: as annotated, or that of the file; 0 if neither is known.
        boxes: float64 [N, 4], xywh in pixels.
        owners: int64 [N], rows of the objects' pictures.
        labels: int64 [N], category ids.
        crowd: bool [N].
    """

    name: str
    folder: Path
    root: Path
    source: str
    images: list[dict[str, Any]]
    annotations: list[Annotation]
    categories: list[dict[str, Any]]
    sizes: np.ndarray
    boxes: np.ndarray
    owners: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    names: dict[int, str] = field(default_factory=dict)  # of the categories

    def file(self, row: int) -> str:
        """The file of picture `row`, relative to the data set's folder."""
        return relative(self.folder / self.images[row]["file_name"], self.root)

    def place(self, row: int, detail: str = "") -> Place:
        """Where picture `row` is."""
        return Place(self.name, self.file(row), detail, row=row)

    def object_place(self, index: int, detail: str = "", *others: int) -> Place:
        """Where object `index` is, with the boxes of the `others` that its fault is about."""
        row = int(self.owners[index])
        boxes = tuple(tuple(corners(self.boxes[k]).tolist()) for k in (index, *others))
        number = self.annotations[index].get("id")
        return Place(self.name, self.file(row), detail, number, row, boxes)

    def finding(
        self,
        kind: str,
        level: Level,
        subjects: str,
        what: str,
        advice: str,
        places: Sequence[Place],
        *,
        more: str = "",
        weight: float,
    ) -> Finding:
        """A finding about some of the part's `subjects`, such as "3 of 205 pictures of train are missing".

        Args:
            kind, level, advice, places, weight: see `tools.checking.findings.finding`.
            subjects: "pictures", "objects" (without crowd regions), or another word for all annotations.
            what: is said of them, with "[is|are]" for the word that depends on their number.
            more: ends the title.
        """
        totals = {"pictures": len(self.images), "objects": max(int((~self.crowd).sum()), 1)}
        total = totals.get(subjects, len(self.crowd))
        title = f"{of_all(len(places), total, subjects)} of {self.name} {agreeing(what, len(places))}{more}"
        return finding(kind, level, title, advice, places, of=total, weight=weight)

    def class_name(self, index: int) -> str:
        """The name of object `index`'s class."""
        return self.names[int(self.labels[index])]


def relative(path: str | os.PathLike[str], root: Path) -> str:
    """`path` below `root`; as it is if it lies elsewhere."""
    return os.fspath(Path(path).relative_to(root)) if Path(path).is_relative_to(root) else os.fspath(path)


def corners(boxes: np.ndarray) -> np.ndarray:
    """xywh → xyxy."""
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def usable_entries(
    name: str, data: dict[str, Any], folder: Path, source: Path, root: Path
) -> tuple[PartData, list[Finding]]:
    """The entries of a part that training could use, and findings about the others.

    Args:
        name: of the part.
        data: in COCO's form, as a reader returns it; it is changed.
        folder, source, root: see `PartData`.
    """
    findings: list[Finding] = []
    ann_file = relative(source, root)
    for key in ("images", "annotations", "categories"):
        entries = data.get(key) if isinstance(data.get(key), list) else []
        data[key] = [entry for entry in entries if isinstance(entry, dict)]
        wrong = [short(entry) for entry in entries if not isinstance(entry, dict)]
        findings += _unusable(name, ann_file, key, wrong, len(entries))
    notes = translate(data, folder)
    if notes:
        findings.append(_translated(name, ann_file, notes))
    images, wrong = _with_unique_ids(*_usable(data["images"], check_images, "image"), "images")
    findings += _unusable(name, ann_file, "images", wrong, len(data["images"]))
    categories, wrong = _with_unique_ids(*_usable(data["categories"], check_categories, "category"), "categories")
    findings += _unusable(name, ann_file, "categories", wrong, len(data["categories"]))
    nameless = name_categories(categories)
    if nameless:
        findings.append(_nameless(name, ann_file, nameless, len(categories)))
    tidy_sizes(images)

    category_ids = {category["id"] for category in categories}

    def check(entries: Sequence[Any]) -> None:
        owners = {entry.get("image_id") for entry in entries if isinstance(entry.get("image_id"), int)}
        check_annotations(entries, owners, category_ids)

    annotations, wrong = _usable(data["annotations"], check, "annotation")
    findings += _unusable(name, ann_file, "annotations", wrong, len(data["annotations"]))
    rows = {image["id"]: row for row, image in enumerate(images)}
    listed = {image["id"] for image in data["images"] if isinstance(image.get("id"), int)}  # the unusable ones too
    orphans = [annotation for annotation in annotations if annotation["image_id"] not in listed]
    if orphans:
        findings.append(_orphans(name, ann_file, orphans, len(annotations)))
    annotations = [annotation for annotation in annotations if annotation["image_id"] in rows]
    boxes = [annotation["bbox"] for annotation in annotations]
    part = PartData(
        name=name,
        folder=folder,
        root=root,
        source=ann_file,
        images=images,
        annotations=annotations,
        categories=categories,
        sizes=np.array([(i.get("width") or 0, i.get("height") or 0) for i in images], dtype=np.float64).reshape(-1, 2),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        owners=np.array([rows[annotation["image_id"]] for annotation in annotations], dtype=np.int64),
        labels=np.array([annotation["category_id"] for annotation in annotations], dtype=np.int64),
        crowd=np.array([bool(annotation.get("iscrowd")) for annotation in annotations], dtype=bool),
        names={category["id"]: category["name"] for category in categories},
    )
    return part, findings


def _usable(entries: Sequence[Any], check: Callable[[Sequence[Any]], Any], what: str) -> tuple[list[Any], list[str]]:
    """The entries that `check` accepts, and what is wrong with each of the others."""
    good: list[Any] = []
    wrong: list[str] = []

    def split(start: int, stop: int) -> None:
        try:
            check(entries[start:stop])
        except ValueError as error:
            if stop - start == 1:
                wrong.append(str(error))
                return
            middle = (start + stop) // 2
            split(start, middle)
            split(middle, stop)
            return
        good.extend(entries[start:stop])

    for start in range(0, len(entries), _LARGEST_LIST):
        split(start, min(start + _LARGEST_LIST, len(entries)))
    return good, wrong


def _with_unique_ids(entries: list[Any], wrong: list[str], key: str) -> tuple[list[Any], list[str]]:
    seen: set[int] = set()
    kept = []
    for entry in entries:
        if entry["id"] in seen:
            wrong.append(f"id {entry['id']} appears twice in `{key}`: ids must be unique")
        else:
            kept.append(entry)
        seen.add(entry["id"])
    return kept, wrong


def _unusable(name: str, source: str, key: str, wrong: Sequence[str], total: int) -> list[Finding]:
    if not wrong:
        return []
    kind = {"images": "entry-image", "categories": "entry-category", "annotations": "entry-annotation"}[key]
    return [
        finding(
            kind,
            Level.STOPS,
            f"{of_all(len(wrong), total, f'entries of `{key}`')} in {name} cannot be used",
            "Training refuses the file. Correct or remove these entries; the rest of this report leaves them out.",
            [Place(name, source, sentence) for sentence in wrong],
            of=total,
            weight=2,
        )
    ]


def _translated(name: str, source: str, notes: Sequence[str]) -> Finding:
    return finding(
        "translated",
        Level.NOTE,
        f"{name} writes some things in another form than COCO, and is read all the same",
        "Nothing to do, if what was read is what was meant.",
        [Place(name, source, note) for note in notes],
        weight=0.1,
    )


def _nameless(name: str, source: str, count: int, total: int) -> Finding:
    return finding(
        "class-nameless",
        Level.NOTE,
        f"{of_all(count, total, 'classes')} of {name} {has(count)} no name",
        "Their ids are used as names. Write a `name` for each category, so that results can be read.",
        [Place(name, source)],
        count=count,
        of=total,
        weight=0.2,
    )


def _orphans(name: str, source: str, orphans: Sequence[Annotation], total: int) -> Finding:
    everything = len(orphans) == total
    return finding(
        "annotation-orphan",
        Level.STOPS if everything else Level.HURTS,
        f"{of_all(len(orphans), total, 'annotations')} of {name} {has(len(orphans), 'belongs', 'belong')} to a "
        "picture that is not listed",
        "They are ignored, so their pictures are missing or the ids are wrong. Add the pictures to `images`, or "
        "correct `image_id`.",
        [Place(name, source, f"image_id {orphan['image_id']}", orphan.get("id")) for orphan in orphans],
        of=total,
        weight=1.5,
    )
