"""TensorBoard curves, on request: values of single steps, and the results of each epoch.

The x axis of every curve is the number of optimizer steps taken. A resumed run can therefore drop every point that the
interrupted run wrote after its last checkpoint, including results of epochs.

The writer is our own, on top of the tensorboard package's record format: the public writers (`EventFileWriter`,
`SummaryWriter`, `tensorboard.summary.Writer`) raise errors on a full disk, lose the latest values if the process is
killed, or hang in forked processes, because each of them writes from a thread.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import Any

from util.coco_names import COCO_METRICS
from util.dist import is_main_process
from util.logging import get_logger


def require_tensorboard() -> None:
    """Raise an ImportError if tensorboard is missing; call this before any work is done."""
    try:
        import tensorboard.compat.proto.event_pb2
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"--tensorboard needs the package tensorboard, which cannot be imported ({error}): run `pip install "
            "tensorboard`, or omit the flag"
        ) from error


class TensorBoardWriter:
    """Writes curves to an event file. Every process may create a writer; only that of rank 0 writes.

    Each call writes to the file before it returns, without a thread. If the disk is full or missing, a warning is
    logged and the curves end with the last whole record; the run continues.

    Attributes:
        failed: why the curves ended early; empty if they did not.

    Args:
        folder: the folder of the event files, one file for each start of the run; None writes nothing.
        purge_step: TensorBoard drops the points of earlier files from this step on. A run that continues after n steps
            (0 for a fresh start) passes n + 1, its next step.

    Raises:
        ImportError: see `require_tensorboard`.
        OSError: the folder or the file cannot be created.
    """

    _files = itertools.count()  # for the names of two writers that one process creates in the same second

    def __init__(self, folder: str | os.PathLike[str] | None, purge_step: int | None = None) -> None:
        self.failed = ""
        self._records: Any = None
        self._end = 0  # of the last whole record, in bytes
        if folder is None or not is_main_process():
            return
        require_tensorboard()
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        # TensorBoard reads the files in the order of their names, so these begin with the time.
        parts = (f"{int(time.time()):010}", socket.gethostname(), str(os.getpid()), str(next(self._files)))
        self._path = Path(folder) / ".".join(["events.out.tfevents", *parts])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
            self._records = RecordWriter(self._file)
        except OSError as error:
            raise OSError(
                f"TensorBoard curves cannot be written to {folder} ({error.strerror or error}): pass another "
                "--output_dir, or omit --tensorboard"
            ) from error
        self._add(file_version="brain.Event:2")
        if purge_step is not None:
            self._add(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve.

        Args:
            values: name → value; `step_name` maps each name to its curve.
            step: optimizer steps taken so far, including the one that the values belong to.
        """
        self._write({step_name(name): value for name, value in values.items()}, step)

    def epoch(self, record: Mapping[str, Any], step: int) -> None:
        """Add the results of an epoch, its line of log.txt, after `step` optimizer steps; see `epoch_scalars`."""
        self._write(epoch_scalars(record), step)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        records, self._records = self._records, None
        if records is not None:
            with suppress(OSError):  # the file could not be written, which has been logged
                records.close()

    def _write(self, values: Mapping[str, float], step: int) -> None:
        if self._records is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        self._add(step=step, summary=Summary(value=points))

    def _add(self, **content: Any) -> None:
        if self._records is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event

        try:
            self._records.write(Event(wall_time=time.time(), **content).SerializeToString())
            self._records.flush()
            self._end = self._file.tell()
        except OSError as error:
            self.failed = f"{self._path} could not be written ({error.strerror or error})"
            get_logger().warning(f"{self.failed}: the run continues without curves")
            self.close()
            with suppress(OSError):
                os.truncate(self._path, self._end)


def step_name(name: str) -> str:
    """The curve of a step's value: lr/…, step/… or step_unscaled/…; a name with a slash is its own curve."""
    if "/" in name:
        return name
    if name == "lr" or name.startswith("lr_"):
        return f"lr/{name}"
    return f"step_unscaled/{name.removesuffix('_unscaled')}" if name.endswith("_unscaled") else f"step/{name}"


def epoch_scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The values of a line of log.txt by curve.

    `train_loss` becomes train/loss, `test_loss_ce_unscaled` test_unscaled/loss_ce, `test_coco_eval_bbox` the 12 curves
    bbox/AP, bbox/AP50, …, `test_PQ_th` panoptic_th/pq, panoptic_th/sq, …. Numbers that are -1 because there is no
    ground truth are left out.
    """
    values: dict[str, float] = {}
    for key, value in record.items():
        split, _, name = key.partition("_")
        if split not in ("train", "test"):
            continue
        if isinstance(value, Real):
            unscaled = name.endswith("_unscaled")
            values[f"{split}_unscaled/{name.removesuffix('_unscaled')}" if unscaled else f"{split}/{name}"] = value
        elif name.startswith("coco_eval_"):
            kind = name.removeprefix("coco_eval_")
            values |= {f"{kind}/{known}": number for known, number in zip(COCO_METRICS.values(), value) if number != -1}
        elif name.startswith("PQ_"):
            group = name.removeprefix("PQ_")
            values |= {f"panoptic_{group}/{known}": value[known] for known in ("pq", "sq", "rq") if value[known] != -1}
    return values
