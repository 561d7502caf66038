"""Settling the settings of a new run by a recipe (`--recipe`): what it sets is said as flags that could be typed.

What the user names wins. What the recipe sets is recorded in the checkpoint as ordinary settings: a resumed run takes
them from there, see `training.follow`, and no recipe is consulted again.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import build_dataset
from datasets.annotated_images import AnnotatedImages
from datasets.augment.rare_classes import repeat_factors
from datasets.augment.repeats import Repeats
from datasets.formats.choose import ChosenData
from training.recipes.choose import choose_recipe
from training.recipes.facts import facts_of
from training.recipes.tables import RECIPES, SHIPPED, SMALL_NETWORK, Run
from util.arguments import named_settings
from util.dist import get_world_size, is_main_process
from util.logging import get_logger
from util.settings import DETECTOR, SETTINGS, names_that_touch

# What follows the run of a checkpoint when a run by a recipe resumes, though other runs take it from the command line.
RESUMED = ("batch_size", "accumulate", "epochs", "max_steps", "eval_every")
TOO_SHORT = 1 / 3  # of the recipe's steps
PUBLISHED = "published"
NO_START = "none"  # what `--init_from` says for a start without a detector


def follow_recipe(
    args: argparse.Namespace, initial: Mapping[str, Any], chosen: ChosenData | None = None
) -> AnnotatedImages:
    """Settle the settings of a new run by `args.recipe`, and log what it sets.

    Args:
        args: changed in place; what the recipe sets counts as named by the user (`args.given`).
        initial: the checkpoint that `--init_from` names; empty without one.
        chosen: the parts of `--data`.

    Returns:
        The training pictures, whose transforms are not settled yet.

    Raises:
        ValueError, OSError: the recipe is for other runs; or the data cannot be used.
    """
    start = (initial.get("args") or {}) if initial else None
    _refuse_others(args, start)
    log, given = get_logger(), named_settings(args)
    named = {name: getattr(args, name) for name in given}
    dataset = build_dataset("train", args, chosen)
    facts = facts_of(dataset)
    name, from_scratch = args.recipe, start is None and "init_from" in named
    if name == "auto":
        name, why = choose_recipe(facts, start, from_scratch=from_scratch)
        log.info(f"--recipe auto chooses {name}: {why}")
        if name == PUBLISHED:
            return dataset
    if name == "small" and start is None and not from_scratch:
        from_scratch = _names_another_network(named)
    _warn_of_other_start(args, start)
    repeated = len(Repeats(repeat_factors(dataset, args.repeat_threshold))) - len(dataset)
    run = Run(facts, named, get_world_size(), start, from_scratch, repeated)
    settings = RECIPES[name](run)
    _warn_if_too_short(name, run, settings)
    settings = {key: value for key, value in settings.items() if key not in named}
    for key, value in settings.items():
        setattr(args, key, value)
    args.given = [*given, *settings]
    log.info(f"--recipe {name} is short for: {spell_flags(settings)}")
    return dataset


def spell_flags(settings: Mapping[str, Any]) -> str:
    """Settings as they could be typed in a shell; a switch that is off is left out, as is a setting that is None."""
    words = []
    for name, value in settings.items():
        setting = SETTINGS[name]
        if value is None or (isinstance(setting.default, bool) and value == setting.default):
            continue
        words.append(setting.spell(_typed(value) if isinstance(value, str) else value))
    return " ".join(words)


def _typed(value: str) -> str:
    here = Path(value)
    if here.is_absolute() and here.is_relative_to(Path.cwd()):
        value = os.path.relpath(here)
    return shlex.quote(value)


def _refuse_others(args: argparse.Namespace, start: Mapping[str, Any] | None) -> None:
    """Refuse runs that no recipe is for."""
    other = {
        "--masks": args.masks,
        "--frozen_weights": args.frozen_weights,
        "--dataset_file coco_panoptic": args.dataset_file == "coco_panoptic",
        f"--init_from {args.init_from}, which has masks": bool(start and start.get("masks")),
    }
    for flag in (flag for flag, named in other.items() if named):
        raise ValueError(f"--recipe {args.recipe} is for detectors of boxes, not for {flag}: leave one of them out")
    if args.recipe == "finetune" and start is None and "init_from" in named_settings(args):
        raise ValueError(
            "--recipe finetune starts from a detector, and --init_from none forbids it: leave one of them out"
        )


def _names_another_network(named: Mapping[str, Any]) -> bool:
    """Whether the user names a network other than the shipped detector's, which is said."""
    known = SMALL_NETWORK | {"num_queries": named.get("num_queries")}
    other = [one for one in names_that_touch(DETECTOR) if one in named and named[one] != known[one]]
    if other:
        flags = ", ".join(SETTINGS[one].spell(named[one]) for one in other)
        get_logger().info(f"{SHIPPED.name} has another network than {flags}: the run starts from scratch")
    return bool(other)


def _warn_of_other_start(args: argparse.Namespace, start: Mapping[str, Any] | None) -> None:
    """A warning where the named recipe is for detectors of another size than the one that the run starts from."""
    backbone = start.get("backbone", "resnet50") if start is not None else None
    if args.recipe == "small" and backbone not in (None, "tiny"):
        sizes, rates, other = "small", "high", "finetune"
    elif args.recipe == "finetune" and backbone == "tiny":
        sizes, rates, other = "full-size", "low", "small"
    else:
        return
    get_logger().warning(
        f"--recipe {args.recipe} is for {sizes} detectors, and its learning rates are too {rates} for "
        f"{args.init_from}, which has --backbone {backbone}: pass --recipe {other}"
    )


def _warn_if_too_short(name: str, run: Run, settings: Mapping[str, Any]) -> None:
    """A warning where the user ends the run long before the recipe would."""
    batch = settings["batch_size"]
    per_epoch = run.steps(batch)
    planned = settings["epochs"] * per_epoch
    epochs = run.named.get("epochs", settings["epochs"])
    steps = min(epochs * per_epoch, run.named.get("max_steps") or planned * epochs)
    if steps < TOO_SHORT * planned and is_main_process():
        get_logger().warning(
            f"the run ends after {steps:,} step{'s' * (steps != 1)}, far fewer than the {planned:,} of "
            f"{settings['epochs']:,} epochs that --recipe {name} takes for {run.facts.pictures:,} pictures: expect a "
            "low AP, or leave out the flag that ends the run so early"
        )
