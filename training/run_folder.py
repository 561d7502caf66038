"""The files of one run: checkpoints, the log, and what an interrupted write may have left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from itertools import compress
from pathlib import Path
from typing import Any

from util.checkpoint import load_checkpoint, save_checkpoint
from util.checkpoint_entries import model_of
from util.dist import is_main_process
from util.errors import CheckpointError
from util.files import append_json_line, write_atomically
from util.logging import get_logger

CHECKPOINT = "checkpoint.pth"
LOG = "log.txt"


class RunFolder:
    """Where a run writes. Without a path, and on every process but the first, writing does nothing.

    A write that fails (a full disk, a lost file system) is said and survived: the files written before stay whole.

    Attributes:
        path: the folder; it is made with the first file.
        failed: the sentence on the last checkpoint, if it could not be saved; empty when all is well.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path) if path else None
        self.failed = ""

    @property
    def writes(self) -> bool:
        return self.path is not None and is_main_process()

    def owns(self, file: str | os.PathLike[str]) -> bool:
        """True if `file` lies in this folder."""
        return self.path is not None and Path(file).resolve().parent == self.path.resolve()

    def save(self, state: Mapping[str, Any], names: Iterable[str] = (CHECKPOINT,)) -> bool:
        """Save a checkpoint under each of `names`; True if all of them were written."""
        if not self.writes:
            return True
        saved = True
        for name in names:
            try:
                save_checkpoint(self.path / name, state)
            except (OSError, RuntimeError) as error:
                cause = _os_error(error)
                if cause is None:
                    raise
                saved = False
                self._say_failed(name, cause)
        if saved:
            self.failed = ""
        return saved

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line to `log.txt`."""
        if not self.writes:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            append_json_line(self.path / LOG, dict(record))
        except OSError as error:
            get_logger().error(f"a line of {self.path / LOG} could not be written ({error}): training goes on")

    def clean(self) -> None:
        """Remove the temporary files of writes that were cut off."""
        if self.writes and self.path.is_dir():
            for leftover in [*self.path.glob(".*.tmp"), *self.path.glob("eval/.*.tmp")]:
                leftover.unlink(missing_ok=True)

    def align_log(self, epoch: int, record: Mapping[str, Any] | None, *, drop_later: bool = True) -> None:
        """Make `log.txt` fit a checkpoint that has finished `epoch`.

        The line of `epoch`, which is `record`, is added if the run was cut off between its checkpoint and its line; a
        line that was cut off itself goes. So do lines of later epochs, which will be trained again, if `drop_later`.
        """
        file = self.path / LOG if self.writes else None
        if file is None:
            return
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        epochs = [_epoch_of(line) for line in lines]
        keep = [found is not None and (found <= epoch or not drop_later) for found in epochs]
        if not all(keep):
            write_atomically(file, lambda f: f.writelines(compress(lines, keep)))
        if record is not None and max(compress(epochs, keep), default=-1) < epoch:
            self.log(record)

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The checkpoint to go on from and its content; None if the folder holds none.

        That is `checkpoint.pth`, else, should it be damaged, the latest of the kept ones.

        Raises:
            CheckpointError: there are checkpoints, and not one of them can be read.
        """
        if self.path is None:
            return None
        found = self._checkpoints()
        for path in found:
            try:
                return path, load_resumable(path)
            except CheckpointError as error:
                get_logger().warning(f"{error}; trying an older one")
        if found:
            raise CheckpointError(f"none of the checkpoints in {self.path} can be read: remove them to start anew")
        return None

    def _checkpoints(self) -> list[Path]:
        """Those that are there, in the order in which a run would go on from them."""
        kept = sorted(self.path.glob("checkpoint[0-9]*.pth"), key=lambda path: (len(path.name), path.name))
        places = (self.path / CHECKPOINT, *reversed(kept), self.path / "checkpoint_best.pth")
        return [path for path in places if path.exists()]

    def _say_failed(self, name: str, cause: OSError) -> None:
        target = self.path / name
        before = target if target.exists() else next(iter(self._checkpoints()), None)
        kept = f"the one saved before is whole: {before}" if before else "none was saved before"
        self.failed = f"checkpoint {target} could not be saved ({cause.strerror or cause}); {kept}"
        get_logger().error(f"{self.failed}; training goes on. Free some space: the next save tries again")


def load_resumable(source: str | os.PathLike[str]) -> dict[str, Any]:
    """A checkpoint that a run can resume from: one that holds weights; CheckpointError if it cannot be used."""
    checkpoint = load_checkpoint(source)
    model_of(checkpoint, str(source))
    return checkpoint


def _epoch_of(line: bytes) -> int | None:
    """The epoch of a line of the log; None for a line that was cut off."""
    try:
        return json.loads(line)["epoch"]
    except (ValueError, KeyError, TypeError):
        return None


def _os_error(error: BaseException | None) -> OSError | None:
    """The system's error behind `error`: torch.save hides a full disk behind an error of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
