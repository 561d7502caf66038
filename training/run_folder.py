"""The files of one run: checkpoints, the log, and leftovers of interrupted writes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from itertools import compress
from pathlib import Path
from typing import Any

from util.checkpoint import load_checkpoint, save_checkpoint
from util.dist import is_main_process
from util.errors import CheckpointError
from util.files import append_json_line, write_atomically
from util.loading.checkpoint_entries import model_of
from util.logging import get_logger

CHECKPOINT = "checkpoint.pth"
LOG = "log.txt"


class RunFolder:
    """Where a run writes. Without a path, and on every process except the main one, writing does nothing.

    A write that fails (a full disk, a lost file system) is logged and the run continues: earlier files stay intact.

    Attributes:
        path: the folder; it is created with the first file.
        failed: why the last checkpoint could not be saved; empty if it was.
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
                self._log_failure(name, cause)
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
            get_logger().error(f"a line of {self.path / LOG} could not be written ({error}): training continues")

    def clean(self) -> None:
        """Remove the temporary files of interrupted writes."""
        if self.writes and self.path.is_dir():
            for leftover in [*self.path.glob(".*.tmp"), *self.path.glob("eval/.*.tmp")]:
                leftover.unlink(missing_ok=True)

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
            write_atomically(file, lambda f: f.writelines(compress(lines, keep)))
        if record is not None and max(compress(epochs, keep), default=-1) < epoch:
            self.log(record)

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The checkpoint to resume from and its content; None if the folder holds none.

        That is `checkpoint.pth`; if it is damaged, the latest of the kept ones.

        Raises:
            CheckpointError: there are checkpoints, but none of them can be read.
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
            raise CheckpointError(f"none of the checkpoints in {self.path} can be read: remove them to start a new run")
        return None

    def _checkpoints(self) -> list[Path]:
        """The existing checkpoints, in the order in which a run would resume from them."""
        kept = sorted(self.path.glob("checkpoint[0-9]*.pth"), key=lambda path: (len(path.name), path.name))
        places = (self.path / CHECKPOINT, *reversed(kept), self.path / "checkpoint_best.pth")
        return [path for path in places if path.exists()]

    def _log_failure(self, name: str, cause: OSError) -> None:
        target = self.path / name
        before = target if target.exists() else next(iter(self._checkpoints()), None)
        kept = f"the one saved before is intact: {before}" if before else "none was saved before"
        self.failed = f"checkpoint {target} could not be saved ({cause.strerror or cause}); {kept}"
        get_logger().error(f"{self.failed}; training continues. Free some space: the next save tries again")


def load_resumable(source: str | os.PathLike[str]) -> dict[str, Any]:
    """A checkpoint that a run can resume from: one that holds weights; CheckpointError if it cannot be used."""
    checkpoint = load_checkpoint(source)
    model_of(checkpoint, str(source))
    return checkpoint


def _epoch_of(line: bytes) -> int | None:
    """The epoch of a line of the log; None for an incomplete line."""
    try:
        return json.loads(line)["epoch"]
    except (ValueError, KeyError, TypeError):
        return None


def _os_error(error: BaseException | None) -> OSError | None:
    """The operating system's error behind `error`: torch.save wraps it in another error if the disk is full."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
