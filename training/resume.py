"""Going on from a checkpoint as if nothing had happened: what it holds beside the weights, and how that is put back.

The published keys keep their meaning (`epoch` is the last finished epoch); ours, which the published code ignores:

    step        optimizer steps taken since the start
    progress    None, or where inside an epoch the run was: {"epoch", "step", "meters"}, and "train_stats" instead of
                the meters once the epoch is trained and only its evaluation is missing
    rng         each process's generators, by rank
    record      the epoch's line of log.txt
    best_ap, categories, world_size, data, versions
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchvision
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from training.optimizer_state import KERNELS, check_optimizer_state, check_schedule_state
from util.checkpoint import CheckpointError
from util.dist import all_gather, get_rank, get_world_size
from util.logging import get_logger
from util.rng import get_rng_state, set_rng_state

# Settings that optimizer and schedule carry: the checkpoint's, unless the command line names them.
FOLLOWED = ("lr", "lr_backbone", "weight_decay", "lr_schedule", "lr_drop", "warmup_steps")
# Settings that may change: they do not change what is learned, or are compared by what they stand for.
FREE = frozenset(
    """
    output_dir device resume init_from start_epoch eval num_workers evaluator print_freq checkpoint_every tensorboard
    preflight panoptic_threshold epochs max_steps eval_every num_classes backbone_weights remove_difficult
    skip_bad_images max_bad_images coco_path coco_panoptic_path train_ann train_images val_ann val_images world_size
    dist_url dist_backend distributed rank gpu given batch_size seed
    """.split()
)


@dataclass
class Position:
    """How far a training is.

    Attributes:
        epoch: the epoch to train next, or to go on with.
        step: steps of that epoch already taken.
        steps_taken: optimizer steps since the start.
        best_ap: the best AP of all evaluations, -1 before the first.
        meters: the epoch's meters so far.
        train_stats: the epoch's training averages, where only its evaluation is missing.
    """

    epoch: int = 0
    step: int = 0
    steps_taken: int = 0
    best_ap: float = -1.0
    meters: dict[str, Any] | None = None
    train_stats: dict[str, float] | None = None


def surroundings() -> dict[str, Any]:
    """What a checkpoint notes of its run: every process's generators (a collective call), their number, versions."""
    return {
        "rng": all_gather(get_rng_state()),
        "world_size": get_world_size(),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
    }


def follow_checkpoint(args: argparse.Namespace, checkpoint: Mapping[str, Any]) -> None:
    """Settle the settings of a resumed run, and say whatever differs from the run before.

    Learning rates and schedule are the checkpoint's unless the command line names them (`args.given`); everything else
    is the command line's.

    Raises:
        CheckpointError: a setting in the checkpoint is of no usable kind.
    """
    saved = checkpoint.get("args")
    if not isinstance(saved, Mapping) or "optimizer" not in checkpoint:
        return
    given = getattr(args, "given", ())
    log = get_logger()
    for name in FOLLOWED:
        if name not in saved or saved[name] == getattr(args, name):
            continue
        if not isinstance(saved[name], str if name == "lr_schedule" else int | float):
            raise CheckpointError(f"{args.resume} names {saved[name]!r} as its --{name}: it is damaged, use another")
        if name in given:
            log.info(f"--{name} {getattr(args, name)} as given now; the checkpoint was made with {saved[name]}")
        else:
            log.info(f"--{name} {saved[name]} from the checkpoint; pass --{name} to change it")
            setattr(args, name, saved[name])
    changed = [
        f"--{name} {value} (was {saved[name]})"
        for name, value in vars(args).items()
        if name in saved and name not in (*FREE, *FOLLOWED) and _plain_list(saved[name]) != _plain_list(value)
    ]
    if changed:
        log.warning(f"settings differ from the checkpoint's: {', '.join(changed)}: this is no longer the same run")


def restore_training(
    args: argparse.Namespace,
    checkpoint: Mapping[str, Any],
    optimizer: torch.optim.Optimizer,
    lr_scheduler: LRScheduler,
    *,
    steps_per_epoch: int,
    data: str,
) -> Position:
    """Continue optimizer, schedule and generators where the checkpoint holds them.

    Args:
        args: `resume` names the checkpoint; `epochs`, `max_steps`, `start_epoch`, `batch_size`, `given`.
        checkpoint: empty for a fresh start; weights alone start at `--start_epoch`.
        steps_per_epoch: of the training data now.
        data: the training data's fingerprint, see `datasets.loader.fingerprint`.

    Returns:
        Where to go on. A position inside an epoch counts only with the same data, batch size and number of processes;
        else that epoch is trained from its beginning, which is said.

    Raises:
        CheckpointError: the state does not fit the model, or is none.
        ValueError: nothing is left to train.
    """
    if not {"optimizer", "lr_scheduler", "epoch"} <= checkpoint.keys():
        return Position(epoch=args.start_epoch, steps_taken=args.start_epoch * steps_per_epoch)
    try:
        position = _position(args, checkpoint, steps_per_epoch, data)
        _load_optimizer(optimizer, checkpoint["optimizer"])
        _load_schedule(args, checkpoint, optimizer, lr_scheduler, position)
        rng = checkpoint.get("rng")
        if rng is not None and len(rng) == get_world_size():
            set_rng_state(rng[get_rank()])
    except Exception as error:  # a broken state surfaces as almost any type
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise CheckpointError(
            f"{args.resume}: its training state cannot be continued ({reason}): pass the flags it was made with, or "
            "start anew from its weights with --init_from"
        ) from error
    _refuse_finished(args, position)
    if position.step:
        where = f"epoch {position.epoch}, step {position.step} of {steps_per_epoch}"
    else:
        where = f"epoch {position.epoch}"
    get_logger().info(f"going on from {args.resume}: {where}, after {position.steps_taken} steps in all")
    return position


def check_same_position(position: Position, source: str) -> None:
    """Refuse to train when the processes stand at different places (a collective call).

    Raises:
        CheckpointError: some processes see another checkpoint, as when the folder is not shared between nodes.
    """
    places = all_gather((position.epoch, position.step, position.steps_taken))
    for rank, place in enumerate(places):
        if place != places[0]:
            raise CheckpointError(
                f"process 0 goes on at epoch {places[0][0]}, step {places[0][1]}, but process {rank} at epoch "
                f"{place[0]}, step {place[1]}: they see different checkpoints at {source or '--output_dir'}; put it on "
                "a file system that all nodes share"
            )


def _position(args: argparse.Namespace, checkpoint: Mapping[str, Any], steps_per_epoch: int, data: str) -> Position:
    epoch = int(checkpoint["epoch"]) + 1
    position = Position(
        epoch=epoch,
        steps_taken=int(checkpoint.get("step", epoch * steps_per_epoch)),
        best_ap=float(checkpoint.get("best_ap", -1.0)),
    )
    changed = _changes(args, checkpoint, data)
    if changed:
        get_logger().warning(f"{'; '.join(changed)}: this is no longer the same run")
    progress = checkpoint.get("progress")
    if progress is None:
        return position
    if changed:
        position.steps_taken -= int(progress["step"])
        get_logger().warning(f"so epoch {epoch}, which was interrupted, is trained from its beginning")
        return position
    position.step = int(progress["step"])
    position.meters = progress.get("meters")
    position.train_stats = progress.get("train_stats")
    return position


def _changes(args: argparse.Namespace, checkpoint: Mapping[str, Any], data: str) -> list[str]:
    """Sentences on what makes a position inside an epoch meaningless, each beginning with what is new."""
    changes = []
    if checkpoint.get("data", data) != data:
        changes.append("the training data are not those of the checkpoint")
    world_size = checkpoint.get("world_size", get_world_size())
    if world_size != get_world_size():
        changes.append(f"the number of processes is {get_world_size()}, it was {world_size}")
    for name in ("batch_size", "seed"):
        now, before = getattr(args, name), checkpoint.get("args", {}).get(name, getattr(args, name))
        if now != before:
            changes.append(f"--{name} is {now}, it was {before}")
    return changes


def _refuse_finished(args: argparse.Namespace, position: Position) -> None:
    advice = "nothing is left to train; raise it, or pass --eval to evaluate"
    if position.epoch >= args.epochs:
        last = position.epoch - 1
        raise ValueError(f"{args.resume} has finished epoch {last} and --epochs is {args.epochs}: {advice}")
    if args.max_steps is not None and position.steps_taken >= args.max_steps and position.train_stats is None:
        raise ValueError(
            f"{args.resume} has taken {position.steps_taken} steps and --max_steps is {args.max_steps}: {advice}"
        )


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    check_optimizer_state(state, optimizer)
    own = [{name: group[name] for name in KERNELS if name in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, choice in zip(optimizer.param_groups, own, strict=True):
        group.update(choice)


def _load_schedule(
    args: argparse.Namespace,
    checkpoint: Mapping[str, Any],
    optimizer: torch.optim.Optimizer,
    lr_scheduler: LRScheduler,
    position: Position,
) -> None:
    """Put the schedule where it was; what the command line changes of it applies from the next step on."""
    check_schedule_state(checkpoint["lr_scheduler"], lr_scheduler)
    saved, given = checkpoint.get("args", {}), getattr(args, "given", ())
    changed = [name for name in FOLLOWED if name in given and name in saved and saved[name] != getattr(args, name)]
    if "weight_decay" in changed:
        for group in optimizer.param_groups:
            group["weight_decay"] = args.weight_decay
    per_step = isinstance(lr_scheduler, LambdaLR)
    if not set(changed) - {"weight_decay"}:
        lr_scheduler.load_state_dict(checkpoint["lr_scheduler"])
        if not per_step:
            return  # each rate is the one before times gamma: the optimizer brought it
    else:
        lr_scheduler.base_lrs = [args.lr, args.lr_backbone][: len(optimizer.param_groups)]
        lr_scheduler.last_epoch = position.steps_taken if per_step else position.epoch
    for index, (group, base) in enumerate(zip(optimizer.param_groups, lr_scheduler.base_lrs, strict=True)):
        if per_step:  # also when only the horizon is new, by --epochs
            group["lr"] = base * lr_scheduler.lr_lambdas[index](lr_scheduler.last_epoch)
        else:
            group["lr"] = base * lr_scheduler.gamma ** (lr_scheduler.last_epoch // lr_scheduler.step_size)
    lr_scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]


def _plain_list(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
