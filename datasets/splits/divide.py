"""Which pictures of a part go to validation: near-duplicates together, balanced by class, as before where it is known.

The rule, its limits and what was measured are in docs/data.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets.splits.balance import choose_sides
from datasets.splits.draws import natural_order, units_of
from datasets.splits.record import Split


@dataclass(frozen=True)
class Pictures:
    """The pictures of a part and what they show.

    Attributes:
        names: their files, each once.
        objects: for each picture, the number of objects by index of the class.
        classes: names of the classes.
    """

    names: list[str]
    objects: list[dict[int, int]]
    classes: list[str]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Pictures:
        """From checked data in COCO's form. Crowd regions do not count."""
        place = {category["id"]: index for index, category in enumerate(data["categories"])}
        file_of = {image["id"]: image["file_name"] for image in data["images"]}
        counts: dict[str, dict[int, int]] = {name: defaultdict(int) for name in file_of.values()}
        for annotation in data["annotations"]:
            if not annotation.get("iscrowd") and annotation["image_id"] in file_of:
                counts[file_of[annotation["image_id"]]][place[annotation["category_id"]]] += 1
        names = [category["name"] for category in data["categories"]]
        return cls(list(counts), [dict(found) for found in counts.values()], names)


@dataclass(frozen=True)
class Division:
    """A split and how it came about.

    Attributes:
        split: the pictures of each side.
        groups: of near-duplicates, how many there are.
        grouped: pictures in them.
        moved: groups and single pictures that are not where their draw says, for balance.
        added: pictures that an earlier split does not know.
    """

    split: Split
    groups: int
    grouped: int
    moved: int
    added: int


def divide(
    pictures: Pictures,
    groups: Sequence[Sequence[int]],
    share: float,
    *,
    val_groups: str = "near",
    earlier: Split | None = None,
    added_train: bool = False,
) -> Division:
    """Split pictures into training and validation.

    Args:
        pictures: all of them.
        groups: indices of those that belong together.
        share: of the pictures, for validation.
        val_groups: what `groups` are, for the record.
        earlier: the pictures that it knows keep their side. A new one joins its near-duplicates. One that has them on
            both sides is left out.
        added_train: new pictures do not join validation: those with near-duplicates there are left out, the others are
            for training.

    Raises:
        ValueError: one side would have no pictures; the message says why, and what to do.
    """
    known = earlier.sides if earlier else {}
    units, draws = units_of(pictures.names, groups)
    sides = _known_sides(pictures.names, units, known, added_train)
    moved = _choose(pictures, units, draws, share, sides)
    by_side: dict[str, list[str]] = {"train": [], "val": [], "left_out": []}
    for name, side in sorted(zip(pictures.names, sides, strict=True), key=lambda pair: natural_order(pair[0])):
        by_side[side].append(name)
    if not by_side["train"] or not by_side["val"]:
        raise ValueError(_why_empty(len(pictures.names), len(draws), by_side, earlier))
    return Division(
        Split(share, val_groups, **by_side, classes=count_classes(pictures, sides)),
        groups=len(groups),
        grouped=sum(map(len, groups)),
        moved=moved,
        added=sum(name not in known for name in pictures.names) if earlier else 0,
    )


def count_classes(pictures: Pictures, sides: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """[images, objects] of each class in "train" and "val", by the name of the class."""
    table = {name: {"train": [0, 0], "val": [0, 0]} for name in pictures.classes}
    for objects, side in zip(pictures.objects, sides, strict=True):
        if side != "left_out":
            for index, count in objects.items():
                cell = table[pictures.classes[index]][side]
                cell[0] += 1
                cell[1] += count
    return table


def _known_sides(names: Sequence[str], units: np.ndarray, known: Mapping[str, str], added_train: bool) -> list[str]:
    """The side of each picture that an earlier split decides, "" for the others."""
    sides = [known.get(name, "") for name in names]
    of_unit: dict[int, set[str]] = defaultdict(set)
    for unit, side in zip(units.tolist(), sides, strict=True):
        of_unit[unit].add(side)
    for index, unit in enumerate(units.tolist()):
        if sides[index]:
            continue
        met = of_unit[unit] & {"train", "val"}
        if len(met) == 2 or (added_train and "val" in met):
            sides[index] = "left_out"
        elif met:
            sides[index] = next(iter(met))
        elif added_train:
            sides[index] = "train"
    return sides


def _choose(pictures: Pictures, units: np.ndarray, draws: np.ndarray, share: float, sides: list[str]) -> int:
    """Fill in the sides that are still ""; returns the number of units that are not where their draw says.

    The pictures whose side is known count as one unit on each side.
    """
    from scipy.sparse import csr_array

    open_units, cell = np.unique(units[[side == "" for side in sides]], return_inverse=True)
    if not len(open_units):
        return 0
    first_known = len(open_units)  # the cells behind the open units: known training, known validation
    cells = np.empty(len(sides), dtype=np.int64)
    cells[[side == "" for side in sides]] = cell
    for place, side in enumerate(("train", "val")):
        cells[[known == side for known in sides]] = first_known + place
    counted = [index for index, side in enumerate(sides) if side != "left_out"]
    empty, every = len(pictures.classes), len(pictures.classes) + 1  # columns: pictures without objects, all pictures
    rows, columns = [], []
    for index in counted:
        shown = [*pictures.objects[index], every] if pictures.objects[index] else [empty, every]
        rows += [cells[index]] * len(shown)
        columns += shown
    shape = (first_known + 2, every + 1)
    table = csr_array((np.ones(len(rows), dtype=np.int64), (rows, columns)), shape=shape)
    table.sum_duplicates()
    fixed = np.concatenate([np.full(first_known, -1), [0, 1]])
    chosen, moved = choose_sides(np.concatenate([draws[open_units], [1, 0]]), table, share, fixed)
    for index, side in enumerate(sides):
        if side == "":
            sides[index] = "val" if chosen[cells[index]] else "train"
    return moved


def _why_empty(images: int, units: int, by_side: Mapping[str, Sequence[str]], earlier: Split | None) -> str:
    if images < 2:
        count = "is 1 image" if images else "are no images"
        return (
            f"--val_share splits off validation images, and there {count}: add images, or name some as validation part"
        )
    if earlier is not None:
        side = "training" if not by_side["train"] else "validation"
        return f"the earlier split leaves no {side} image of these {images:,}: leave --val_split out to split anew"
    if units < 2:
        return (
            f"--val_share cannot split these {images:,} images: all are near-duplicates of one another, such as frames "
            "of one video, which stay on one side. Add images of other scenes, name validation images of your own "
            "(--val_ann, --val_images), or pass --val_groups none to split them all the same"
        )
    return f"--val_share cannot split these {images:,} images into two parts: pass another share"
