"""Where a run starts: fresh, from the weights of another run, on a frozen detector, or where a checkpoint left off.

`find_start` settles the settings: what the user does not name comes from the checkpoint where the table of settings
(`util.settings`) says so. `read_data` adds the classes. After that they are read-only.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from datasets import build_dataset
from datasets.annotated_images import AnnotatedImages
from models.backbone import check_backbone, wanted_weights
from training.init_weights import init_weights
from training.run_folder import RunFolder, load_resumable
from training.tensorboard import require_tensorboard
from util.arguments import check_args
from util.checkpoint import load_checkpoint, load_weights
from util.coco_names import thing_ids
from util.device import resolve_device
from util.dist import get_rank, init_distributed_mode, run_on_main
from util.errors import CheckpointError
from util.loading.checkpoint_entries import count_classes, detector_weights, model_of
from util.logging import get_logger, get_sha
from util.rng import seed_everything
from util.settings import DETECTOR, SCHEDULE, SETTINGS, TRAINING, SettledArgs, names_that_touch
from util.text import Lines


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        args: its settings; those of the classes are settled by `read_data`.
        folder: its files.
        checkpoint: what `--resume` names; empty otherwise.
        frozen: what `--frozen_weights` names, if the run does not resume; empty otherwise.
    """

    args: SettledArgs
    folder: RunFolder
    checkpoint: dict[str, Any] = field(default_factory=dict)
    frozen: dict[str, Any] = field(default_factory=dict)

    def prepare_model(self, model: nn.Module, categories: Sequence[Mapping[str, Any]]) -> None:
        """Load the weights that the run starts from, if any, into a new model, and choose the faster memory layout.

        Raises:
            CheckpointError: the weights do not fit the model.
        """
        args, log = self.args, get_logger()
        model.to(memory_format=torch.channels_last)  # the same numbers, faster convolutions
        if self.checkpoint:
            load_weights(model, self.checkpoint["model"], args.resume)
        elif self.frozen:
            source = args.frozen_weights
            load_weights(model.detr, detector_weights(model_of(self.frozen, source)), source)
        elif args.init_from:
            log.info(Lines(init_weights(model, load_checkpoint(args.init_from), args.init_from, categories)))
        trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        log.info(f"trainable parameters: {trainable:,}; device: {args.device}")


@dataclass(frozen=True)
class Data:
    """The data sets of a run, and its settings with the classes.

    Attributes:
        train: None when only evaluating.
        categories: {"id", "name"} of the classes that predictions mean.
    """

    args: SettledArgs
    train: AnnotatedImages | None
    val: AnnotatedImages
    categories: list[dict[str, Any]]


def find_start(args: argparse.Namespace) -> Start:
    """Check the settings, join the other processes, read the checkpoint and follow it, seed the generators.

    Args:
        args: as parsed; it is not changed. `given` lists the settings that the command line sets, see
            `util.arguments.given_flags`.

    Raises:
        ValueError, ImportError: settings that are impossible, a package that is missing, or an output folder that holds
            another run or is in use.
        CheckpointError, OSError: a checkpoint cannot be used, or the output folder not be written to.
    """
    args, log = copy.copy(args), get_logger()  # sets up the logger before other modules use it
    check_args(args)
    if args.tensorboard:
        require_tensorboard()
    args.device = str(resolve_device(args.device))
    init_distributed_mode(args)
    folder = RunFolder(args.output_dir)
    run_on_main(lambda: folder.claim(args))
    checkpoint = find_checkpoint(args, folder)
    frozen = load_checkpoint(args.frozen_weights) if args.frozen_weights and not checkpoint else {}
    if args.frozen_weights:
        follow_detector(args, checkpoint or frozen, args.resume or args.frozen_weights)
    follow_checkpoint(args, checkpoint)
    check_args(args)  # the values from the checkpoint too
    check_backbone(args.backbone, args.backbone_norm, wanted_weights(args))
    seed_everything(args.seed + get_rank())
    log.info(Lines(f"git: {get_sha()}\n{args}"))
    return Start(SettledArgs.of(args), folder, checkpoint, frozen)


def read_data(start: Start) -> Data:
    """Read the data sets and settle the classes.

    Raises:
        ValueError, OSError: data that cannot be used, or a category without a class.
    """
    val = build_dataset("val", start.args)
    train = None if start.args.eval else build_dataset("train", start.args)
    datasets = [dataset for dataset in (train, val) if dataset is not None]
    settled, categories = settle_classes(start.args, start.checkpoint or start.frozen, datasets)
    return Data(start.args.replace(**settled), train, val, categories)


def settle_classes(
    args: argparse.Namespace, checkpoint: Mapping[str, Any], datasets: Sequence[AnnotatedImages]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Which classes the model has: the command line's count, else the checkpoint's, else the annotations'.

    Returns:
        (settings, categories): `num_classes`, and `thing_ids` where the categories tell things from stuff; the
        categories ({"id", "name"}) of the checkpoint, else of the data.

    Raises:
        ValueError: the data has a category that the model has no class for.
        CheckpointError: the checkpoint does not hold a detector.
    """
    num_classes = args.num_classes
    if num_classes is None and checkpoint:
        num_classes = count_classes(checkpoint.get("model", {}), args.resume or args.frozen_weights)
    elif num_classes is None:
        num_classes = max(dataset.num_classes for dataset in datasets)
    for dataset in datasets:
        dataset.check_classes(num_classes)
    settled: dict[str, Any] = {"num_classes": num_classes}
    categories = checkpoint.get("categories") or datasets[0].categories
    if any("isthing" in category for category in categories):
        settled["thing_ids"] = thing_ids(categories)
    return settled, categories


def find_checkpoint(args: argparse.Namespace, folder: RunFolder) -> dict[str, Any]:
    """What `--resume` names; empty without it. `auto` becomes the newest checkpoint in `folder`, or a fresh start."""
    if args.resume != "auto":
        return load_resumable(args.resume) if args.resume else {}
    found = folder.newest()
    if found is None:
        get_logger().info(f"--resume auto: no checkpoint in {folder.path} yet, starting fresh")
        args.resume = ""
        return {}
    args.resume, args.init_from = str(found[0]), ""
    return found[1]


def follow_detector(args: argparse.Namespace, checkpoint: Mapping[str, Any], source: str) -> None:
    """Take the settings of a frozen detector from the checkpoint that supplies it, and log them.

    Settings that the command line sets (`args.given`) stay; loading the weights fails if they do not fit.

    Raises:
        CheckpointError: a setting in the checkpoint has the wrong type.
    """
    saved = {name: value for name, value in (checkpoint.get("args") or {}).items() if value is not None}
    names = [name for name in names_that_touch(DETECTOR) if name not in getattr(args, "given", ())]
    taken = dict(_differing(args, saved, names, source))
    vars(args).update(taken)
    if taken:
        get_logger().info(f"from {source}: {', '.join(f'--{name} {value}' for name, value in taken.items())}")


def follow_checkpoint(args: argparse.Namespace, checkpoint: Mapping[str, Any]) -> None:
    """Settle the settings of a resumed run, and log what differs from the run before.

    Learning rates and schedule come from the checkpoint unless the command line sets them (`args.given`); everything
    else comes from the command line.

    Raises:
        CheckpointError: a setting in the checkpoint has the wrong type.
    """
    saved = checkpoint.get("args")
    if not isinstance(saved, Mapping) or "optimizer" not in checkpoint:
        return
    log = get_logger()
    for name, value in _differing(args, saved, names_that_touch(SCHEDULE), args.resume):
        if name in getattr(args, "given", ()):
            log.info(f"--{name} {getattr(args, name)} as given; the checkpoint was made with {value}")
        else:
            log.info(f"--{name} {value} from the checkpoint; pass --{name} to change it")
            setattr(args, name, value)
    changed = [
        f"--{name} {getattr(args, name)} (was {saved[name]})"
        for name in SETTINGS
        if SETTINGS[name].touches in (DETECTOR, TRAINING)
        and name in saved
        and hasattr(args, name)
        and _plain_list(saved[name]) != _plain_list(getattr(args, name))
    ]
    if changed:
        names = ", ".join(changed)
        log.warning(f"settings differ from the checkpoint's: {names}: results will differ from an uninterrupted run")


def _differing(
    args: argparse.Namespace, saved: Mapping[str, Any], names: Iterable[str], source: str
) -> list[tuple[str, Any]]:
    """(name, the checkpoint's value) of the settings among `names` that differ; CheckpointError for a wrong type."""
    found = []
    for name in names:
        if name not in saved or not hasattr(args, name) or saved[name] == getattr(args, name):
            continue
        value, own = saved[name], getattr(args, name)
        if not isinstance(value, int | float if isinstance(own, int | float) else str):
            raise CheckpointError(f"{source} has {value!r} as its --{name}: it is damaged, use another checkpoint")
        found.append((name, value))
    return found


def _plain_list(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
