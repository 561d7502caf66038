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
        named.insert(0, (str(source), checkpoint.get("categories") or _PUBLISHED.get(head, list)()))
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


def compare_classes(files: Sequence[tuple[str, Categories]]) -> None:
    """Compare the names that any two files give to the ids that they share.

    Capital letters, Unicode forms, and spaces, hyphens and underscores inside of a name do not matter, nor do classes
    without a name, or whose name is their id. Another name is a warning. If one of the two files has that name under
    another id, the ids mean other classes.

    Args:
        files: (where, categories) of the checkpoint or the training data, then of the others.

    Raises:
        ValueError: an id means another class; the message gives the first, its names and both files.
    """
    warned: set[int] = set()
    for (first, own), (where, other) in combinations([(file, _names(categories)) for file, categories in files], 2):
        differing = [
            number for number in own if number in other and plain_name(own[number]) != plain_name(other[number])
        ]
        if not differing:
            continue
        theirs, ours = ({plain_name(name) for name in names.values()} for names in (other, own))
        moved = [n for n in differing if plain_name(own[n]) in theirs or plain_name(other[n]) in ours]
        number = (moved or differing)[0]
        more = f" ({len(differing)} classes differ)" if len(differing) > 1 else ""
        names = [printable(names[number], 60) for names in (own, other)]
        found = f"class {number} is {names[0]!r} in {first} and {names[1]!r} in {where}{more}"
        if moved:
            raise ValueError(
                f"{found}: the ids mean other classes there. Use one list of categories in all annotation files; to "
                "train a checkpoint's weights on other classes, start a new run with --init_from"
            )
        if not warned.issuperset(differing):  # of three files, two may differ from the third in the same way
            get_logger().warning(f"{found}: they are taken to be the same class")
        warned.update(differing)


def _names(categories: Categories) -> dict[int, str]:
    """Id → name of the classes that have one."""
    return {c["id"]: c["name"] for c in categories if plain_name(c["name"]) not in ("", str(c["id"]))}


def plain_name(name: str) -> str:
    """What is compared of a name: not its capital letters, Unicode form, or spaces, hyphens and underscores inside."""
    plain = unicodedata.normalize("NFKC", name).casefold().strip()
    return re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", "", plain)  # "C++" and "C", "A+" and "A-" are different classes
