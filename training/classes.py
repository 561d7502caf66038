"""The classes of a run: how many the model has, and whether ids mean the same in every file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from datasets.annotated_images import AnnotatedImages
from util.coco_names import (
    COCO_NUM_CLASSES,
    PANOPTIC_NUM_CLASSES,
    coco_categories,
    panoptic_categories,
    thing_ids,
)
from util.loading.checkpoint_entries import count_classes
from util.logging import get_logger
from util.text import printable

Categories = Sequence[Mapping[str, Any]]  # each with "id" and "name"
_PUBLISHED = {COCO_NUM_CLASSES: coco_categories, PANOPTIC_NUM_CLASSES: panoptic_categories}


def settle_classes(
    num_classes: int | None, checkpoint: Mapping[str, Any], source: str | None, datasets: Sequence[AnnotatedImages]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Which classes the model has: the checkpoint's, else those of `num_classes`, else those of the annotations.

    Args:
        num_classes: as the command line sets it; None if it does not.
        checkpoint: whose class head the run keeps; empty if there is none. A head of COCO's size without names is taken
            to be COCO's.
        source: the checkpoint's path or address.
        datasets: of training and validation.

    Returns:
        (settings, categories): `num_classes`, and `thing_ids` where the categories tell things from stuff; the
        categories ({"id", "name"}) of the checkpoint, else of the data.

    Raises:
        ValueError: the data have a category that the model has no class for; ids mean other classes in one file than
            in another; or `num_classes` contradicts the checkpoint.
        CheckpointError: the checkpoint does not hold a detector.
    """
    named = [(str(dataset.ann_file), dataset.categories) for dataset in datasets]
    remedy = None
    if checkpoint:
        head = count_classes(checkpoint.get("model", {}), str(source))
        if num_classes not in (None, head):
            raise ValueError(
                f"--num_classes {num_classes} contradicts {source}, whose class head has {head} classes: leave it out, "
                f"or start a new run with other classes from its weights, with --init_from {source}"
            )
        num_classes, remedy = head, f"start a new run with the new classes from its weights, with --init_from {source}"
        named.insert(0, (str(source), categories_of(checkpoint, source)))
    elif num_classes is None:
        num_classes = max(dataset.num_classes for dataset in datasets)
    for dataset in datasets:
        dataset.check_classes(num_classes, remedy)
    compare_classes(named)
    settled: dict[str, Any] = {"num_classes": num_classes}
    categories = checkpoint.get("categories") or datasets[0].categories
    if any("isthing" in category for category in categories):
        settled["thing_ids"] = thing_ids(categories)
    return settled, categories


def categories_of(checkpoint: Mapping[str, Any], source: str | None) -> Categories:
    """The classes of a checkpoint, COCO's for a head of COCO's size without names; empty if they are not known.

    Raises:
        CheckpointError: the checkpoint does not hold a detector.
    """
    if not checkpoint:
        return []
    head = count_classes(checkpoint.get("model", {}), str(source))
    return checkpoint.get("categories") or _PUBLISHED.get(head, list)()


def compare_classes(files: Sequence[tuple[str, Categories]], *, report: bool = True) -> None:
    """Compare which names any two files give to their ids.

    Capital letters, Unicode forms, and spaces, hyphens and underscores inside of a name do not matter, nor do classes
    without a name, or whose name is their id. A name that both files have, but never under the same id, is an
    error; another name for an id is a warning.

    Args:
        files: (where, categories) of the checkpoint or the training data, then of the others.
        report: log the warnings.

    Raises:
        ValueError: the ids mean other classes; the message gives the first of them and both files.
    """
    warned: set[int] = set()
    for (first, own), (where, other) in combinations([(file, _names(categories)) for file, categories in files], 2):
        differing = [
            number for number in own if number in other and plain_name(own[number]) != plain_name(other[number])
        ]
        ours, theirs = _ids(own), _ids(other)
        moved = [name for name in ours if name in theirs and ours[name].isdisjoint(theirs[name])]
        if not differing and not moved:
            continue
        if moved:  # by an id that both files have, if there is one
            names = set(moved)
            differing = [n for n in differing if not names.isdisjoint((plain_name(own[n]), plain_name(other[n])))]
        if differing:
            quoted = [repr(printable(names[differing[0]], 60)) for names in (own, other)]
            found = f"class {differing[0]} is {quoted[0]} in {first} and {quoted[1]} in {where}"
        else:
            ids = [min(numbers[moved[0]]) for numbers in (ours, theirs)]
            found = f"{printable(own[ids[0]], 60)!r} is class {ids[0]} in {first} and {ids[1]} in {where}"
        count = len(differing or moved)
        found += f" ({count} classes differ)" if count > 1 else ""
        if moved:
            raise ValueError(
                f"{found}: the ids mean other classes there. Use one list of categories in all annotation files; to "
                "train a checkpoint's weights on other classes, start a new run with --init_from"
            )
        if report and not warned.issuperset(differing):  # of three files, two may differ from the third in the same way
            get_logger().warning(f"{found}: they are taken to be the same class")
        warned.update(differing)


def _ids(names: Mapping[int, str]) -> dict[str, set[int]]:
    """The ids of each name, as names are compared."""
    found: dict[str, set[int]] = {}
    for number, name in names.items():
        found.setdefault(plain_name(name), set()).add(number)
    return found


def _names(categories: Categories) -> dict[int, str]:
    """Id → name of the classes that have one."""
    return {c["id"]: c["name"] for c in categories if plain_name(c["name"]) not in ("", str(c["id"]))}


def plain_name(name: str) -> str:
    """What is compared of a name: not its capital letters, Unicode form, or spaces, hyphens and underscores inside."""
    plain = unicodedata.normalize("NFKC", name).casefold().strip()
    return re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", "", plain)  # "C++" and "C", "A+" and "A-" are different classes
