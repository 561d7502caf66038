"""The files of one run: checkpoints, the log, and leftovers of interrupted writes."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import compress
from pathlib import Path
from typing import Any

import torch

from datasets.splits.record import SPLIT
from util.checkpoint import load_checkpoint, save_checkpoint
from util.dist import is_main_process
from util.errors import CheckpointError
from util.files import append_json_line, remove_leftovers, write_atomically, write_json
from util.loading.checkpoint_entries import model_of, without_average
from util.logging import get_logger
from util.output.folder_lock import FolderLock, refuse_if_locked

CHECKPOINT = "checkpoint.pth"
BEST = "checkpoint_best.pth"
LOG = "log.txt"
TRAINING_LOCK, EVALUATION_LOCK = ".lock", ".evaluation.lock"
SHARE = 0.1  # of the time, for checkpoints that can wait
# What runs write, as patterns below the folder. A new run that replaces an old one removes these and nothing else.
WRITTEN = (
    CHECKPOINT,
    "checkpoint[0-9]*.pth",
    BEST,
    LOG,
    SPLIT,
    "eval.pth",
    "overfit.json",
    "report.html",
    *(f"eval/{name}.json" for name in ("per_class", "f1", "confusion", "errors", "detections", "segmentations", "run")),
    *(f"eval/{name}.png" for name in ("per_class", "pr_curves", "f1", "confusion", "detections")),
    "eval/latest.pth",
    "eval/[0-9]*.pth",
    "panoptic_eval/*.png",
    "panoptic_eval/predictions.json",
    "panoptic_eval/quality.json",
    "tensorboard/events.out.tfevents.*",
    "non_finite_rank[0-9]*.pth",
)
# Settings that name a file to start from; it must not be among those that are removed.
SOURCES = ("resume", "init_from", "frozen_weights", "backbone_weights")


class RunFolder:
    """Where a run writes. Without a path, and on every process except the main one, writing does nothing.

    A write that fails (a full disk, a lost file system) is logged and the run continues: earlier files stay intact.

    Attributes:
        path: the folder; `claim` creates it.
        faults: what is missing in the folder because it could not be written: kind of file → sentence. A later write
            that succeeds removes the entry; a run that ends with entries has failed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path) if path else None
        self.faults: dict[str, str] = {}
        self._unlogged: list[dict[str, Any]] = []  # lines of the log to write again
        self._replaces = False  # the files of another run, once the new one begins
        self._next_save = 0.0  # by time.monotonic()

    @property
    def failed(self) -> str:
        """Why the last checkpoint could not be saved; empty if it was."""
        return self.faults.get("checkpoint", "")

    @property
    def writes(self) -> bool:
        return self.path is not None and is_main_process()

    def owns(self, file: str | os.PathLike[str]) -> bool:
        """True if `file` lies in this folder, perhaps as a link to a file elsewhere."""
        return self.path is not None and self.path.resolve() in (
            Path(file).resolve().parent,
            Path(file).parent.resolve(),
        )

    def claim(self, args: argparse.Namespace) -> None:
        """Reserve the folder for this command and see that it is writable; see `util.output.folder_lock`.

        To be called on the main process. Evaluations take a lock of their own, so that they never keep a training from
        starting.

        Raises:
            ValueError: another process writes to the folder; or it holds a run that the command neither resumes nor
                overwrites.
            OSError: the folder cannot be created or written to.
        """
        if self.path is None:
            return
        if args.eval:
            refuse_if_locked(self.path / TRAINING_LOCK)
            FolderLock(self.path, EVALUATION_LOCK, "evaluation").acquire()
            return
        FolderLock(self.path, TRAINING_LOCK, "training").acquire()
        found = self._checkpoints() or [path for path in [self.path / LOG] if path.exists() and path.stat().st_size]
        if not found:
            return
        if args.overwrite:
            self._refuse_to_remove(args)
        elif args.resume not in ("", "auto") and not self.owns(args.resume):
            raise ValueError(
                f"--output_dir {self.path} holds a run ({found[0].name}), but not the one of --resume {args.resume}: "
                "choose another folder, pass --resume auto to continue the run in it, or --overwrite to delete it"
            )
        elif not args.resume:
            raise ValueError(
                f"--output_dir {self.path} holds a run already ({found[0].name}): pass --resume auto to continue it, "
                "choose another folder, or pass --overwrite to delete it and start anew"
            )
        self._replaces = args.overwrite or args.resume == "auto"

    def begin(self) -> None:
        """Remove what a run before left behind: the new one, which does not continue it, is about to begin."""
        if not (self.writes and self._replaces):
            return
        files = [file for pattern in WRITTEN for file in sorted(self.path.glob(pattern)) if not file.is_dir()]
        for file in files:
            file.unlink(missing_ok=True)
        self._replaces = False
        get_logger().info(f"removed {len(files)} file{'s' * (len(files) != 1)} of the run before from {self.path}")

    def _refuse_to_remove(self, args: argparse.Namespace) -> None:
        removed = {file.resolve() for pattern in WRITTEN for file in self.path.glob(pattern)}
        for name in SOURCES:
            source = getattr(args, name) or ""
            if source and Path(source).resolve() in removed:
                raise ValueError(
                    f"--overwrite deletes the run in {self.path}, and with it --{name} {source}: choose another folder"
                )

    def save_is_due(self) -> bool:
        """Whether a checkpoint that can wait is to be saved now: such ones take at most `SHARE` of the time."""
        return bool(self.failed) or time.monotonic() >= self._next_save

    def save(self, state: Mapping[str, Any], names: Iterable[str] = (CHECKPOINT,)) -> bool:
        """Save a checkpoint under each of `names`; True if all of them were written."""
        if not self.writes:
            return True
        saved, began = True, time.monotonic()
        for name in names:
            try:
                save_checkpoint(self.path / name, state)
            except (OSError, RuntimeError) as error:
                cause = os_error(error)
                if cause is None:
                    raise
                saved = False
                self._log_failure(name, cause)
        took = time.monotonic() - began
        self._next_save = time.monotonic() + took / SHARE
        if saved:
            self.faults.pop("checkpoint", None)
        return saved

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line to `log.txt`, and before it the lines that could not be written so far."""
        if not self.writes:
            return
        self._unlogged.append(dict(record))
        file = self.path / LOG
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            while self._unlogged:
                append_json_line(file, self._unlogged[0])
                self._unlogged.pop(0)
            self.faults.pop("log", None)
        except OSError as error:
            lines = f"{len(self._unlogged)} line{'s' * (len(self._unlogged) > 1)} of {file}"
            self.faults["log"] = f"{lines} could not be written ({error.strerror or error})"
            get_logger().error(f"{self.faults['log']}; training continues. The next line tries again")

    def write_split(self, record: Mapping[str, Any]) -> None:
        """Write which image is for training and which for validation, see `datasets.splits.record`."""
        if not self.writes:
            return
        file = self.path / SPLIT
        try:
            write_json(file, record)
        except OSError as error:
            self.faults["split"] = f"{file} could not be written ({error.strerror or error})"
            get_logger().error(f"{self.faults['split']}; training continues")
            return
        get_logger().info(f"the split is written to {file}")

    def clean(self) -> None:
        """Remove the temporary files of interrupted writes."""
        if self.writes and self.path.is_dir():
            remove_leftovers(
                file for part in ("", "eval/", "panoptic_eval/") for file in self.path.glob(f"{part}.*.tmp")
            )

    def align_log(self, epoch: int, record: Mapping[str, Any] | None, *, drop_later: bool = True) -> None:
        """Make `log.txt` match a checkpoint whose last finished epoch is `epoch`.

        `record`, the line of `epoch`, is added if the run was interrupted between its checkpoint and its line. An
        incomplete line is removed. With `drop_later`, so are the lines of later epochs, which will be trained again.
        """
        file = self.path / LOG if self.writes else None
        if file is None:
            return
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        epochs = [_epoch_of(line) for line in lines]
        keep = [found is not None and (found <= epoch or not drop_later) for found in epochs]
        if not all(keep):
            try:
                write_atomically(file, lambda f: f.writelines(compress(lines, keep)))
            except OSError as error:
                raise OSError(f"{file} could not be written ({error.strerror or error}): make room first") from error
        if record is not None and max(compress(epochs, keep), default=-1) < epoch:
            self.log(record)

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The checkpoint to resume from and its content; None if the folder holds none.

        That is `checkpoint.pth`, also after a run went back to an earlier one. If it is damaged or missing, it is the
        furthest of the others by their content, `checkpoint_best.pth` included. Each file is read once; of those that
        are not tried, only the position.

        Raises:
            CheckpointError: there are checkpoints, but none of them can be read.
        """
        if self.path is None:
            return None
        failed = False
        for path in self._candidates():
            try:
                checkpoint = load_resumable(path)
            except CheckpointError as error:
                get_logger().warning(f"{error}; trying an older one")
                failed = True
                continue
            if path.name != CHECKPOINT:
                get_logger().warning(
                    f"--resume auto: resuming from {path}, which ends with epoch {checkpoint.get('epoch')}"
                )
            return path, checkpoint
        if failed:
            raise CheckpointError(f"none of the checkpoints in {self.path} can be read: remove them to start a new run")
        return None

    def _candidates(self) -> Iterator[Path]:
        """The checkpoints in the order in which `newest` tries them; files are opened only when their turn may come."""
        found = self._checkpoints()
        if (self.path / CHECKPOINT) in found:
            yield found.pop(0)
        yield from sorted(found, key=_steps_taken, reverse=True)

    def _checkpoints(self) -> list[Path]:
        """The existing checkpoints: `checkpoint.pth`, the kept ones from the last to the first, the best one."""
        kept = sorted(self.path.glob("checkpoint[0-9]*.pth"), key=lambda path: (len(path.name), path.name))
        places = (self.path / CHECKPOINT, *reversed(kept), self.path / BEST)
        return [path for path in places if path.exists()]

    def _log_failure(self, name: str, cause: OSError) -> None:
        target = self.path / name
        before = target if target.exists() else next(iter(self._checkpoints()), None)
        kept = f"the one saved before is intact: {before}" if before else "none was saved before"
        self.faults["checkpoint"] = f"checkpoint {target} could not be saved ({cause.strerror or cause}); {kept}"
        get_logger().error(f"{self.failed}; training continues. Free some space: the next save tries again")


def load_resumable(source: str | os.PathLike[str]) -> dict[str, Any]:
    """A checkpoint that a run can resume from: one that holds weights; CheckpointError if it cannot be used."""
    checkpoint = load_checkpoint(source)
    model_of(without_average(checkpoint), str(source))
    return checkpoint


def _steps_taken(path: Path) -> tuple[int, int]:
    """(last finished epoch, steps) of a checkpoint, without reading its tensors; (-1, -1) if that fails."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        epoch = int(content["epoch"])
        return epoch, int(content.get("step", 0))
    except Exception:  # damaged, or too old for this; it is tried last, and then says what is wrong
        return -1, -1


def _epoch_of(line: bytes) -> int | None:
    """The epoch of a line of the log; None for an incomplete line."""
    try:
        return json.loads(line)["epoch"]
    except (ValueError, KeyError, TypeError):
        return None


def os_error(error: BaseException | None) -> OSError | None:
    """The operating system's error behind `error`: torch.save wraps it in another error if the disk is full."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
