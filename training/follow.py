"""Which settings a run takes from the checkpoint that it starts from (the table: `util.settings`).

What the user does not name comes from the checkpoint. What they name and what contradicts the network is refused. Other
settings may differ, and a resumed run says which do.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from training.recipes.follow import PUBLISHED, RESUMED
from util.arguments import named_settings
from util.errors import CheckpointError
from util.loading.checkpoint_entries import has_masks, model_of
from util.loading.saved_settings import check_settings, infer_settings, read_settings
from util.logging import get_logger
from util.settings import DETECTOR, INPUT, SCHEDULE, SETTINGS, TRAINING, names_that_touch

# How a run uses a checkpoint
RESUME, EVALUATE, INIT, FREEZE = "--resume", "--eval --resume", "--init_from", "--frozen_weights"


def follow_checkpoint(args: argparse.Namespace, checkpoint: Mapping[str, Any], source: str, use: str) -> None:
    """Settle the settings of a run that starts from a checkpoint, and log what was taken from it in one line.

    Args:
        args: changed in place. `args.given` lists what the user names; without it, what differs from the defaults.
        checkpoint: the file's content.
        source: its path or address.
        use: RESUME, EVALUATE, INIT or FREEZE.

    Raises:
        CheckpointError: the checkpoint has no weights, or a setting in it cannot be used.
        ValueError: the user names another network than the checkpoint's; all such settings are listed.
    """
    given, saved = named_settings(args), _saved_settings(checkpoint, source, use)
    if use == RESUME and "recipe" in given and args.recipe != saved.setdefault("recipe", PUBLISHED):
        raise ValueError(
            f"--recipe {args.recipe} contradicts {source}, a run by --recipe {saved['recipe']}: leave it out to go on "
            "as before, or start a new run from its weights with --init_from"
        )
    different = {name: value for name, value in saved.items() if not _equal(value, getattr(args, name))}
    _refuse_contradictions(args, {name: different[name] for name in different if name in given}, source, use)
    taken = {name: value for name, value in different.items() if name not in given}
    for name, value in taken.items():
        setattr(args, name, list(value) if isinstance(value, tuple) else value)
    if checkpoint.get("args"):
        own_masks = {"masks": False} if use == FREEZE else {}  # the mask head is none of the file's
        check_settings(argparse.Namespace(**(vars(args) | own_masks)), source)
    log = get_logger()
    if taken:
        log.info(f"from {source}: {' '.join(SETTINGS[name].spell(value) for name, value in taken.items())}")
    kept = [name for name in different if name in given]
    if kept and use == RESUME:
        changed = ", ".join(f"{SETTINGS[name].spell(getattr(args, name))} (was {different[name]})" for name in kept)
        log.warning(f"settings differ from the checkpoint's: {changed}: results will differ from an uninterrupted run")


def _saved_settings(checkpoint: Mapping[str, Any], source: str, use: str) -> dict[str, Any]:
    """The checkpoint's settings that this use of it follows."""
    weights = {"model": model_of(checkpoint, source)}
    touches = [DETECTOR, INPUT]
    if use in (RESUME, EVALUATE):
        touches.append(TRAINING)
    if use == RESUME and "optimizer" in checkpoint:
        touches.append(SCHEDULE)
    names = [*names_that_touch(*touches), *(["masks"] if use == INIT else [])]
    if use == RESUME and (checkpoint.get("args") or {}).get("recipe", PUBLISHED) != PUBLISHED:
        names += RESUMED
    if use == EVALUATE:
        names = [name for name in names if not SETTINGS[name].trains]
    if checkpoint.get("args"):
        found = read_settings(checkpoint, source, names)
    else:
        found = {"masks": has_masks(weights["model"])} if "masks" in names else {}
        try:
            found |= infer_settings(weights, source)
            del found["dilation"]  # a guess by the file's name
        except CheckpointError:
            pass  # the command line describes the detector, and loading the weights compares it with them
    return {name: value for name, value in found.items() if value is not None}


def _refuse_contradictions(args: argparse.Namespace, different: Mapping[str, Any], source: str, use: str) -> None:
    """Refuse settings that the user names and that make another network than the checkpoint's.

    Args:
        different: the checkpoint's values of settings that the user names otherwise.
    """
    if "masks" in different:
        advice = {
            INIT: "pass it as --frozen_weights instead",
            RESUME: "train its mask head with --frozen_weights first",
            EVALUATE: "leave --masks out",
        }
        raise ValueError(f"--masks contradicts {source}, which is a model without masks: {advice[use]}")
    wrong = [
        name for name in names_that_touch(DETECTOR) if name in different and not (use == INIT and SETTINGS[name].adapts)
    ]
    if wrong:
        named = " and ".join(SETTINGS[name].spell(getattr(args, name)) for name in wrong)
        spelled = [SETTINGS[name].spell(different[name]) for name in wrong]
        theirs = " and ".join(one if one.startswith("without") else f"with {one}" for one in spelled)
        it = "it comes" if len(wrong) == 1 else "they come"
        contradicts = "contradicts" if len(wrong) == 1 else "contradict"
        raise ValueError(
            f"{named} {contradicts} {source}, which was made {theirs}: leave the "
            f"flag{'s' * (len(wrong) > 1)} out, {it} from the checkpoint"
        )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return list(one) == list(other)
    return one == other
