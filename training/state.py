"""The state of a training run: what a checkpoint holds, how it is written and how a run resumes from it.

The published keys keep their meaning: `model`, `optimizer`, `lr_scheduler`, `args`, and `epoch`, the last finished
epoch. Ours, which the published code ignores:

    step          optimizer steps taken since the start
    progress      None between epochs; inside one {"epoch", "step", "meters"}; after its last step, before the
                  evaluation has finished, {"epoch", "step", "train_stats"}
    record        the epoch's line of log.txt; only in checkpoints between epochs
    thresholds    the score of each class's best F1, see `evaluation.thresholds`; only if the weights were evaluated
    best_score    the best score of all evaluations, see `evaluation.score`; `best_ap` in older files
    waited        how many evaluations in a row since the best one were not better (`--early_stop`)
    categories    [{"id", "name"}] of the classes
    rng           the state of each process's generators, by rank
    world_size    number of processes
    data          fingerprint of the training data
    model_ema     the moving average of the weights (`--ema`), under the names of `model`; only where the run keeps one
    ema_steps     how many steps the average has followed
    split         which image is for training and which for validation, see `datasets.splits.record`; only where the
                  validation images are a share of the training part (`--val_share`)
    scaler        the loss's scale in float16 (`--amp fp16`), see `util.compute.precision`; None otherwise
    versions      of Python, torch, NumPy and Pillow; the threads, processor and device that decide the last bits

`util.loading.checkpoint_entries` checks the type of each entry of a file that is loaded.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from datasets.loader import same_data
from training.average import WeightAverage
from training.optimizer_state import KERNELS, check_optimizer_state, check_schedule_state
from util.arguments import named_settings
from util.compute.precision import FLOAT32, Precision
from util.dist import all_gather, get_rank, get_world_size
from util.errors import CheckpointError
from util.files import plain
from util.logging import get_logger
from util.rng import get_rng_state, set_rng_state
from util.settings import SCHEDULE, names_that_touch


@dataclass
class Position:
    """How far a training has come.

    Attributes:
        epoch: the epoch to train or continue.
        step: steps of that epoch already taken.
        steps_taken: optimizer steps since the start.
        best_score: the best score of all evaluations, -1 before the first.
        meters: the epoch's meters so far, inside an epoch.
        train_stats: the epoch's training averages, once all its steps are taken.
        waited: evaluations in a row without a better score.
    """

    epoch: int = 0
    step: int = 0
    steps_taken: int = 0
    best_score: float = -1.0
    meters: dict[str, Any] | None = None
    train_stats: dict[str, float] | None = None
    waited: int = 0

    @property
    def epoch_start(self) -> int:
        """Optimizer steps taken before this epoch."""
        return self.steps_taken - self.step

    def progress(self) -> dict[str, Any] | None:
        """The checkpoint's entry of that name."""
        if self.train_stats is not None:
            return {"epoch": self.epoch, "step": self.step, "train_stats": self.train_stats}
        if self.meters is not None:
            return {"epoch": self.epoch, "step": self.step, "meters": self.meters}
        return None


@dataclass(frozen=True)
class TrainingResult:
    """What a run has reached.

    Attributes:
        folder: of its files; None if it saves nothing.
        best_score: of all evaluations, see `evaluation.evaluation.score`: AP of boxes, of masks, or PQ.
        best_checkpoint: the weights that had it; None if they are not saved.
        last_checkpoint: the weights at the end, with the state to resume from; None if they are not saved.
        epochs, steps: how many the run has trained since its first start.
        last: the line of `log.txt` of its last epoch, with the losses and the results of the evaluation.
    """

    folder: Path | None
    best_score: float
    best_checkpoint: Path | None
    last_checkpoint: Path | None
    epochs: int
    steps: int
    last: dict[str, Any]


class TrainingState:
    """All that changes while a training runs.

    Args:
        args: the settings of the run.
        model, optimizer, lr_scheduler: what is trained, and how.
        precision: of the forward; its scale of the loss is part of the state.
        average: of the weights, if the run keeps one.
        steps_per_epoch: of the training data.
        data: fingerprint of the training data, see `datasets.loader.fingerprint`.
        categories: {"id", "name"} of the classes.
        split: the record of the split, if the run has made one.

    Attributes:
        position: how far the training has come.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: LRScheduler,
        *,
        precision: Precision = FLOAT32,
        average: WeightAverage | None = None,
        steps_per_epoch: int,
        data: str,
        categories: Sequence[Mapping[str, Any]] = (),
        split: Mapping[str, Any] | None = None,
    ):
        self.args, self.categories = args, list(categories)
        self.model, self.optimizer, self.lr_scheduler = model, optimizer, lr_scheduler
        self.precision, self.average = precision, average
        self.steps_per_epoch, self.data = steps_per_epoch, data
        self.split = {} if split is None else {"split": dict(split)}
        self.position = Position(epoch=args.start_epoch, steps_taken=args.start_epoch * steps_per_epoch)

    def state_dict(self) -> dict[str, Any]:
        """The content of a checkpoint. A collective call."""
        return {
            "model": self.model.state_dict(),
            **(self.average.state_dict() if self.average else {}),
            **self.split,
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "scaler": self.precision.state_dict(),
            "epoch": self.position.epoch - 1,
            "args": plain(self.args),
            "categories": self.categories,
            "best_score": self.position.best_score,
            "waited": self.position.waited,
            "step": self.position.steps_taken,
            "progress": self.position.progress(),
            "data": self.data,
            "rng": all_gather(get_rng_state()),
            "world_size": get_world_size(),
            "versions": self._versions(),
        }

    def load_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue optimizer, schedule, generators and position from a checkpoint. A collective call.

        The weights are loaded beforehand, by `training.start`, since evaluation needs them too. A checkpoint without
        training state changes nothing, so that training begins at `--start_epoch`. A position inside an epoch needs the
        same data, batch size, seed and number of processes; otherwise that epoch is trained from its beginning, with a
        warning.

        Raises:
            CheckpointError: the state does not fit the model or is damaged; or processes resume at different positions.
            ValueError: nothing is left to train.
        """
        if self.average and checkpoint:
            self.average.load_state_dict(checkpoint, self.args.resume)
        if {"optimizer", "lr_scheduler", "epoch"} <= checkpoint.keys():
            source = self.args.resume
            try:
                self.position = self._read_position(checkpoint)
                _load_optimizer(self.optimizer, checkpoint["optimizer"])
                self._load_schedule(checkpoint)
                self.precision.load_state_dict(checkpoint.get("scaler"))
                rng = checkpoint.get("rng")
                if rng is not None and len(rng) == get_world_size():
                    set_rng_state(rng[get_rank()])
            except Exception as error:  # a damaged state can raise almost any type
                reason = (str(error).strip() or type(error).__name__).split("\n")[0]
                raise CheckpointError(
                    f"{source}: the training state cannot be restored ({reason}): pass the flags it was saved with, or "
                    "start a new run from its weights with --init_from"
                ) from error
            self._refuse_finished()
            at = self.position
            inside = f", step {at.step} of {self.steps_per_epoch}" if at.step else ""
            get_logger().info(f"resuming from {source}: epoch {at.epoch}{inside}, after {at.steps_taken} steps")
        check_same_position(self.position, self.args.resume)

    def ends_early(self) -> bool:
        """Whether as many evaluations as `--early_stop` allows were not better than the best one before them."""
        return 0 < getattr(self.args, "early_stop", 0) <= self.position.waited

    def _versions(self) -> dict[str, str]:
        """What decides the last bits of the numbers, besides settings and data."""
        return {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "threads": str(torch.get_num_threads()),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "device": torch.device(self.args.device).type,
        }

    def _read_position(self, checkpoint: Mapping[str, Any]) -> Position:
        epoch = int(checkpoint["epoch"]) + 1
        position = Position(
            epoch=epoch,
            steps_taken=int(checkpoint.get("step", epoch * self.steps_per_epoch)),
            best_score=float(checkpoint.get("best_score", checkpoint.get("best_ap", -1.0))),
            waited=int(checkpoint.get("waited", 0)),
        )
        changes = self._changes_since(checkpoint)
        if changes:
            get_logger().warning(f"{'; '.join(changes)}: results will differ from an uninterrupted run")
        saved, own = checkpoint.get("versions") or {}, self._versions()
        other = [
            f"{name} is {own[name]}, it was {saved[name]}" for name in own if saved.get(name, own[name]) != own[name]
        ]
        if other:
            get_logger().warning(f"{'; '.join(other)}: the last bits of the numbers may differ")
        progress = checkpoint.get("progress")
        if progress is None:
            return position
        if changes and progress.get("train_stats") is None:  # else only its evaluation is left, whatever has changed
            position.steps_taken -= int(progress["step"])
            get_logger().warning(f"epoch {epoch}, which was interrupted, is trained from its beginning")
            return position
        position.step = int(progress["step"])
        position.meters = progress.get("meters")
        position.train_stats = progress.get("train_stats")
        return position

    def _changes_since(self, checkpoint: Mapping[str, Any]) -> list[str]:
        """What makes a position inside an epoch meaningless, one clause each."""
        changes = []
        if not same_data(checkpoint.get("data", self.data), self.data):
            changes.append("the training data differ from the checkpoint's")
        world_size = checkpoint.get("world_size", get_world_size())
        if world_size != get_world_size():
            changes.append(f"the number of processes is {get_world_size()}, it was {world_size}")
        settings = checkpoint.get("args", {})
        for name in ("batch_size", "accumulate", "seed", "repeat_threshold"):
            earlier = {"accumulate": 1, "repeat_threshold": 0}  # of versions without the setting
            now = getattr(self.args, name, earlier.get(name, 1))
            before = settings.get(name, earlier.get(name, now))
            if now != before:
                changes.append(f"--{name} is {now}, it was {before}")
        grouped = getattr(self.args, "group_by_aspect", False)
        if settings and grouped != settings.get("group_by_aspect", False):
            changes.append(f"--group_by_aspect is {'on' if grouped else 'off'}, it was {'off' if grouped else 'on'}")
        return changes

    def _refuse_finished(self) -> None:
        args, at = self.args, self.position
        advice = "nothing is left to train; raise it, or pass --eval to evaluate"
        if at.epoch >= args.epochs:
            raise ValueError(f"{args.resume} has finished epoch {at.epoch - 1} and --epochs is {args.epochs}: {advice}")
        if self.ends_early() and at.step == 0:
            raise ValueError(
                f"{args.resume} has ended early, after {at.waited} evaluation{'s' * (at.waited != 1)} without a better "
                f"score, and --early_stop is {args.early_stop}: {advice}"
            )
        if args.max_steps is not None and at.steps_taken >= args.max_steps and at.train_stats is None:
            raise ValueError(
                f"{args.resume} has taken {at.steps_taken} steps and --max_steps is {args.max_steps}: {advice}"
            )

    def _load_schedule(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the schedule's position. Values that the command line changes apply from the next step."""
        args, lr_scheduler = self.args, self.lr_scheduler
        check_schedule_state(checkpoint["lr_scheduler"], lr_scheduler)
        saved, named = checkpoint.get("args", {}), named_settings(args)
        followed = [name for name in names_that_touch(SCHEDULE) if name in named and name in saved]
        changed = {name for name in followed if saved[name] != getattr(args, name)}
        if "weight_decay" in changed:
            for group in self.optimizer.param_groups:
                group["weight_decay"] = args.weight_decay
        per_step = isinstance(lr_scheduler, LambdaLR)
        if per_step and args.lr_schedule == "cosine":
            ends = {name: saved.get(name, getattr(args, name)) for name in ("epochs", "max_steps")}
            moved = [f"--{n} is {getattr(args, n)}, it was {end}" for n, end in ends.items() if end != getattr(args, n)]
            if moved:
                get_logger().warning(f"{'; '.join(moved)}: the learning rate follows the cosine to the new end")
        if not changed - {"weight_decay"}:
            lr_scheduler.load_state_dict(checkpoint["lr_scheduler"])
            if not per_step:
                return  # the optimizer's state has the rates
        else:
            lr_scheduler.base_lrs = [args.lr, args.lr_backbone][: len(self.optimizer.param_groups)]
            lr_scheduler.last_epoch = self.position.steps_taken if per_step else self.position.epoch
        done = lr_scheduler.last_epoch
        for index, (group, base) in enumerate(zip(self.optimizer.param_groups, lr_scheduler.base_lrs, strict=True)):
            if per_step:  # needed also when only --epochs moves the end of the schedule
                group["lr"] = base * lr_scheduler.lr_lambdas[index](done)
            else:
                group["lr"] = base * lr_scheduler.gamma ** (done // lr_scheduler.step_size)
        lr_scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def check_same_position(position: Position, source: str) -> None:
    """Refuse to train when the processes are at different positions. A collective call.

    Raises:
        CheckpointError: some processes see another checkpoint, for example in a folder that the nodes do not share.
    """
    places = all_gather((position.epoch, position.step, position.steps_taken))
    for rank, place in enumerate(places):
        if place != places[0]:
            raise CheckpointError(
                f"process 0 is at epoch {places[0][0]}, step {places[0][1]}, but process {rank} at epoch {place[0]}, "
                f"step {place[1]}: they see different checkpoints at {source or '--output_dir'}; put it on a file "
                "system that all nodes share"
            )


def _load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    check_optimizer_state(state, optimizer)
    own = [{name: group[name] for name in KERNELS if name in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, choice in zip(optimizer.param_groups, own, strict=True):
        group.update(choice)
