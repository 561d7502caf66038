"""Where a run starts: fresh, from the weights of another run, on a frozen detector, or where a checkpoint left off.

`find_start` settles the settings, see `training.follow`. `read_data` adds the classes. After that they are read-only.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datasets import build_dataset
from datasets.annotated_images import AnnotatedImages
from datasets.coco import build_transforms
from datasets.formats.choose import ChosenData, choose_data
from datasets.splits.record import Split
from models.backbone import check_backbone, wanted_weights
from training.classes import categories_of, settle_classes
from training.diagnosis.few_pictures import few_pictures, overfit_settings
from training.follow import EVALUATE, FREEZE, INIT, RESUME, follow_checkpoint
from training.init_weights import init_weights
from training.recipes.follow import NO_START, PUBLISHED, follow_recipe
from training.run_folder import TRAINING_LOCK, RunFolder, load_resumable, os_error
from training.tensorboard import require_tensorboard
from util.arguments import check_args, check_flags, named_settings
from util.checkpoint import load_weights, save_checkpoint
from util.compute.compilation import check_compiler
from util.compute.device import resolve_device
from util.compute.precision import check_precision
from util.dist import get_rank, get_world_size, init_distributed_mode, run_on_main
from util.loading.checkpoint_entries import detector_weights, model_of, without_average
from util.logging import get_logger, get_sha
from util.output.folder_lock import refuse_if_locked
from util.rng import seed_everything
from util.settings import SETTINGS, SettledArgs
from util.text import Lines


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        args: its settings; those of the classes are settled by `read_data`.
        folder: its files.
        checkpoint: what `--resume` names; empty otherwise.
        frozen: what `--frozen_weights` names, if the run does not resume; empty otherwise.
        initial: what `--init_from` names, without the states of the earlier run; empty otherwise.
        train: the training pictures, if a recipe has looked at them; `read_data` settles their transforms.
        chosen: the parts of `--data`, if a recipe has looked at them.
    """

    args: SettledArgs
    folder: RunFolder
    checkpoint: dict[str, Any] = field(default_factory=dict)
    frozen: dict[str, Any] = field(default_factory=dict)
    initial: dict[str, Any] = field(default_factory=dict)
    train: AnnotatedImages | None = None
    chosen: ChosenData | None = None

    def save_thresholds(self, thresholds: Mapping[str, Any] | None) -> None:
        """With `--save_thresholds`, write the evaluated checkpoint with its classes' thresholds, all else unchanged.

        Args:
            thresholds: see `evaluation.thresholds`; None on processes that do not write.

        Raises:
            OSError: the file cannot be written.
        """
        out = self.args.save_thresholds
        if not out or thresholds is None:
            return
        try:
            save_checkpoint(out, {**self.checkpoint, "thresholds": thresholds})
        except (OSError, RuntimeError) as error:
            cause = os_error(error)
            if cause is None:
                raise
            raise OSError(
                f"{out} cannot be written ({cause.strerror or cause}): pass another --save_thresholds"
            ) from error
        get_logger().info(f"wrote {out}: the checkpoint with these thresholds, for predict.py --threshold best")

    def prepare_model(self, model: nn.Module, categories: Sequence[Mapping[str, Any]]) -> None:
        """Load the weights that the run starts from, if any, into a new model, and choose the faster memory layout.

        Raises:
            CheckpointError: the weights do not fit the model.
        """
        args, log = self.args, get_logger()
        model.to(memory_format=torch.channels_last)  # the same numbers, faster convolutions
        if self.checkpoint:
            weights = model_of(self.checkpoint, args.resume) if args.eval else self.checkpoint["model"]
            load_weights(model, weights, args.resume)
        elif self.frozen:
            source = args.frozen_weights
            load_weights(model.detr, detector_weights(model_of(self.frozen, source)), source)
        elif self.initial:
            log.info(Lines(init_weights(model, self.initial, args.init_from, categories)))
        if any(used.get("model_ema") for used in (self.checkpoint if args.eval else {}, self.frozen, self.initial)):
            log.info("these weights are the moving average of a run (--ema); --raw_weights: without averaging")
        trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        log.info(f"trainable parameters: {trainable:,}; device: {args.device}")


@dataclass(frozen=True)
class Data:
    """The data sets of a run, and its settings with the classes.

    Attributes:
        train: None when only evaluating.
        categories: {"id", "name"} of the classes that predictions mean.
        split: which image is for training and which for validation, if a share was held out for validation.
    """

    args: SettledArgs
    train: AnnotatedImages | None
    val: AnnotatedImages
    categories: list[dict[str, Any]]
    split: Split | None = None


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
    if args.init_from == NO_START:
        args.given, args.init_from = named_settings(args), ""
    check_flags(args)
    if args.tensorboard:
        require_tensorboard()
    args.device = str(resolve_device(args.device))
    init_distributed_mode(args)
    if args.overfit:
        settle_overfit(args)
    folder = RunFolder(args.output_dir)
    run_on_main(lambda: folder.claim(args))
    checkpoint = find_checkpoint(args, folder)
    if args.save_thresholds:
        run_on_main(lambda: _check_target(args))
    frozen = load_resumable(args.frozen_weights) if args.frozen_weights and not checkpoint else {}
    initial = _without_states(load_resumable(args.init_from)) if args.init_from and not checkpoint else {}
    chosen = train = None
    if args.recipe != PUBLISHED and not (args.eval or checkpoint):
        chosen = choose_data(args)
        train = follow_recipe(args, initial, chosen)
        if args.init_from and not initial:
            initial = _without_states(load_resumable(args.init_from))
    if args.raw_weights:
        checkpoint, frozen, initial = (without_average(each) for each in (checkpoint, frozen, initial))
    if checkpoint:
        follow_checkpoint(args, checkpoint, args.resume, EVALUATE if args.eval else RESUME)
    elif frozen:
        follow_checkpoint(args, frozen, args.frozen_weights, FREEZE)
    elif initial:
        follow_checkpoint(args, initial, args.init_from, INIT)
    check_args(args)
    check_precision(args.amp, torch.device(args.device))
    if args.compile:
        check_compiler(torch.device(args.device))
    check_backbone(args.backbone, args.backbone_norm, wanted_weights(args))
    seed_everything(args.seed + get_rank())
    log.info(Lines(f"git: {get_sha()}\n{describe_settings(args)}"))
    return Start(SettledArgs.of(args), folder, checkpoint, frozen, initial, train, chosen)


def settle_overfit(args: argparse.Namespace) -> None:
    """The settings of a test with `--overfit`, in place: its files have a folder of their own, which it replaces.

    Raises:
        ValueError: there are several processes.
    """
    if get_world_size() > 1:
        raise ValueError("--overfit tests the settings in one process: start it without the launcher")
    if args.output_dir:
        args.output_dir, args.overwrite = str(Path(args.output_dir, "overfit")), True


def read_data(start: Start) -> Data:
    """Read the data sets and settle the classes.

    Raises:
        ValueError, OSError: data that cannot be used, or a category without a class.
    """
    saved = start.checkpoint.get("split")
    loaded, source = start.checkpoint or start.frozen, start.args.resume or start.args.frozen_weights
    earlier = Split.of(saved, start.args.resume) if saved else None
    chosen = start.chosen or choose_data(start.args, earlier, categories_of(loaded, source))
    if start.args.overfit:
        train = val = few_pictures(_training_pictures(start, chosen), start.args)
    else:
        val = build_dataset("val", start.args, chosen)
        train = None if start.args.eval else _training_pictures(start, chosen)
    if chosen:
        get_logger().info(chosen.found.sentence())
    datasets = [dataset for dataset in dict.fromkeys((train, val)) if dataset is not None]
    settled, categories = settle_classes(start.args.num_classes, loaded, source, datasets)
    if start.args.overfit:
        settled |= overfit_settings(start.args, val)
    return Data(start.args.replace(**settled), train, val, categories, chosen.split if chosen else None)


def _training_pictures(start: Start, chosen: ChosenData | None) -> AnnotatedImages:
    """The training part, which a recipe may have read already, for other sizes."""
    if start.train is None:
        return build_dataset("train", start.args, chosen)
    start.train._transforms = build_transforms("train", start.args)
    return start.train


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


def describe_settings(args: argparse.Namespace) -> str:
    """The settings that differ from their defaults, on one line."""
    changed = [
        setting.spell(getattr(args, name))
        for name, setting in SETTINGS.items()
        if hasattr(args, name) and getattr(args, name) != setting.default
    ]
    return f"settings other than the defaults: {' '.join(changed) or 'none'}"


def _check_target(args: argparse.Namespace) -> None:
    """Refuse a file of `--save_thresholds` whose content would be lost or that a training is about to replace."""
    out = Path(args.save_thresholds)
    if out.is_dir():
        raise ValueError(f"--save_thresholds {out} is a folder: name the file to write in it")
    if args.raw_weights and out.exists() and Path(args.resume).exists() and out.samefile(args.resume):
        raise ValueError(
            f"--raw_weights writes the checkpoint without its moving average, which {out} would lose: name another "
            "file with --save_thresholds"
        )
    refuse_if_locked(out.parent / TRAINING_LOCK, "--save_thresholds")


def _without_states(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with None in place of the optimizer's state and the like, which a new run does not need."""
    needed = ("model", "model_ema", "categories", "args")
    return {name: value if name in needed else None for name, value in checkpoint.items()}
