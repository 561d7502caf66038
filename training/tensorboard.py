"""Curves for TensorBoard, on request: the values of single steps, and what each epoch ends with.

The x axis of every curve is the number of optimizer steps taken, so that a resumed run can drop whatever an
interrupted one wrote after its last checkpoint, epochs included.
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
    """Refuse before any work is done what could not be written later: ImportError where tensorboard is missing."""
    try:
        import tensorboard.compat.proto.event_pb2
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"--tensorboard needs a package that cannot be used here ({error}): run pip install tensorboard, or leave "
            "the flag out"
        ) from error


class TensorBoardWriter:
    """Writes curves to event files; every process may hold one, that of rank 0 writes.

    What was given is in the file when a call returns: no thread lies between that a fork would have to survive. A
    disk that is full or gone ends the curves with a warning and nothing else.

    Args:
        folder: where the event files lie, one for each start of the run; None writes nothing.
        purge_step: curves of earlier starts are dropped from this step on. A run that goes on after n steps, or starts
            anew after 0, writes n + 1 next and passes that.

    Raises:
        ImportError: see `require_tensorboard`.
        OSError: the folder or the file cannot be made.
    """

    _files = itertools.count()  # two writers of one process and one second need two names

    def __init__(self, folder: str | os.PathLike[str] | None, purge_step: int | None = None) -> None:
        self._records: Any = None
        if folder is None or not is_main_process():
            return
        require_tensorboard()
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        # TensorBoard reads the files in the order of their names, which therefore begin with the time.
        parts = (f"{int(time.time()):010}", socket.gethostname(), str(os.getpid()), str(next(self._files)))
        self._path = Path(folder) / ".".join(["events.out.tfevents", *parts])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._records = RecordWriter(self._path.open("wb"))
        except OSError as error:
            raise OSError(
                f"no curves can be written to {folder} ({error.strerror or error}): pass another --output_dir, or do "
                "without --tensorboard"
            ) from error
        self._add(file_version="brain.Event:2")
        if purge_step is not None:
            self._add(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve. Names with a slash stay as they are, the others are grouped by `step_name`.

        Args:
            values: name → value.
            step: optimizer steps taken so far, the one described included.
        """
        self._write({step_name(name): value for name, value in values.items()}, step)

    def epoch(self, record: Mapping[str, Any], step: int) -> None:
        """Add what an epoch ends with, `record` being its line of log.txt, after `step` steps; see `epoch_scalars`."""
        self._write(epoch_scalars(record), step)

    def close(self) -> None:
        """End the file; a second call does nothing."""
        records, self._records = self._records, None
        if records is not None:
            with suppress(OSError):  # of a file that could not be written to, which was said then
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
        except OSError as error:
            reason = error.strerror or error
            get_logger().warning(f"{self._path} cannot be written ({reason}): the run goes on without curves")
            self.close()


def step_name(name: str) -> str:
    """A step's value → its curve: lr/…, step/…, step_unscaled/…, and names with a slash as they are."""
    if "/" in name:
        return name
    if name == "lr" or name.startswith("lr_"):
        return f"lr/{name}"
    return f"step_unscaled/{name.removesuffix('_unscaled')}" if name.endswith("_unscaled") else f"step/{name}"


def epoch_scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """A line of log.txt → curve name → value.

    `train_loss` becomes train/loss, `test_loss_ce_unscaled` test_unscaled/loss_ce, `test_coco_eval_bbox` the 12 curves
    bbox/AP, bbox/AP50, …, `test_PQ_th` panoptic_th/pq, panoptic_th/sq, …; numbers that are -1, for want of ground
    truth, have no point.
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
