"""The parts of `--data` that a run trains and evaluates on."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets.formats.class_ids import follow_classes
from datasets.formats.find import find_data
from datasets.formats.part import NAMES, FoundData, Part
from datasets.formats.voc.options import VocOptions
from datasets.splits.hold_out import held_out, hold_out, wants_split
from datasets.splits.record import Split
from util.text import printable


@dataclass(frozen=True)
class ChosenData:
    """A data set and the parts of it that a run uses.

    `train` is None when only evaluating, `split` unless the validation part is a share of the training part.
    """

    found: FoundData
    train: Part | None
    val: Part
    split: Split | None = None


def choose_data(
    args: Namespace, earlier: Split | None = None, known: Sequence[Mapping[str, Any]] = ()
) -> ChosenData | None:
    """The data set that `args.data` names and the parts to train and to evaluate on; None without `data`.

    An evaluation of a folder that tells no parts apart uses all of its images.

    Args:
        args: `data`, a folder; `eval`, whether no training data are needed; `eval_part`, the part to evaluate on;
            `overfit`, whether the training part is all that is needed; `voc_difficult`, `voc_origin`: see `VocOptions`;
            `val_share`, `val_split` and `val_groups`, where there is no validation part.
        earlier: the split of the run that resumes or is evaluated.
        known: the categories of its classes, see `datasets.formats.class_ids.follow_classes`.

    Raises:
        OSError, ValueError: see `datasets.formats.find.find_data`; or the data set lacks a part.
    """
    if not getattr(args, "data", None):
        return None
    voc = VocOptions(getattr(args, "voc_difficult", "ignore"), getattr(args, "voc_origin", 1))
    found = follow_classes(find_data(args.data, voc), known)
    if getattr(args, "overfit", None):  # trains and evaluates on the same images
        train = _take(found, "train", "training")
        return ChosenData(found, train, train)
    name = getattr(args, "eval_part", "val")
    if name == "val" and "train" in found.parts and wants_split(args, earlier, has_val="val" in found.parts):
        if not getattr(args, "eval", False):
            return ChosenData(found, *hold_out(found.parts["train"], args, earlier))
        if (val := held_out(found.parts["train"], args, earlier)) is not None:
            return ChosenData(found, None, val)
    if not getattr(args, "eval", False):
        return ChosenData(found, _take(found, "train", "training"), _take(found, name, "evaluation"))
    if found.undivided and name == "val":
        return ChosenData(found, None, found.parts["train"])
    return ChosenData(found, None, _take(found, name, "evaluation"))


def part_named(found: FoundData, name: str | None = None) -> Part:
    """A part of a data set by its name; without one the part "val", else the only part.

    Raises:
        ValueError: there is no such part, or no name and several without a "val" among them.
    """
    if name is None and len(found.parts) == 1:
        return next(iter(found.parts.values()))
    if (name or "val") in found.parts:
        return found.parts[name or "val"]
    if name is not None and found.undivided:
        raise ValueError(
            f"{found.kind} in {printable(found.root)} tells no parts apart, so there is no {name} part: leave the part "
            "out to use all images"
        )
    if (name or "val") in found.unusable:
        raise ValueError(found.unusable[name or "val"])
    described = " and ".join(each for each in NAMES if each in found.parts)
    raise ValueError(
        f"{found.kind} in {printable(found.root)} has no {name or 'val'} part: name one that it has ({described})"
    )


def _take(found: FoundData, name: str, purpose: str) -> Part:
    if name in found.parts:
        return found.parts[name]
    remedies = []
    if name == "val":
        remedies.append("pass --val_share 0.15 to hold out a share of the training images")
        if "test" in found.parts:
            remedies.append("pass --eval_part test to evaluate on the test part")
    if name in found.unusable:
        fault = f"the {name} part, which {purpose} needs, cannot be used: {found.unusable[name]}"
        raise ValueError("; or ".join([fault, *remedies]))
    described = "one part" if found.undivided else " and ".join(each for each in NAMES if each in found.parts)
    raise ValueError(
        f"{found.kind} in {printable(found.root)} has no {name} part, which {purpose} needs (it has {described}): "
        f"{', or '.join(remedies) or 'add it, or pass another folder'}"
    )
