"""A scheduler's time limit: the training saves and stops first, and is queued again after that."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


class TimeLimit:
    """Inside the `with` block, the signal that announces the end of a job's time stops the training (`util.signals`).

    Whoever handled that signal before, as submitit does by queueing the job again, is called afterwards: by `requeue`;
    at once if no training listens; or when it has not stopped in three quarters of the notice. Without a handler of
    before, the signal keeps its meaning.

    Args:
        number: the signal.
        notice: seconds from the signal to the end.

    Attributes:
        reached: the signal has come.
    """

    def __init__(self, number: int, notice: float) -> None:
        self.reached = False
        self._number = number
        self._patience = max(1, round(0.75 * notice))  # seconds
        self._process = os.getpid()

    def __enter__(self) -> TimeLimit:
        self._requeue = signal.getsignal(self._number)
        self._idle = signal.getsignal(signal.SIGTERM)  # a training that listens puts a handler of its own there
        if callable(self._requeue):
            self._alarm = signal.signal(signal.SIGALRM, self._lose_patience)
            signal.signal(self._number, self._hear)
        return self

    def __exit__(self, *exception: object) -> None:
        if callable(self._requeue):
            signal.alarm(0)
            signal.signal(signal.SIGALRM, self._alarm)
            # The work is over, be it done or failed: what comes now must not queue it again.
            signal.signal(self._number, signal.SIG_IGN)

    def requeue(self) -> None:
        """Have the job queued again, and end this process without a result, since there is none yet.

        submitit's handler queues in the job's first process and does nothing in the others.
        """
        self._requeue(self._number, None)
        sys.exit(0)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # workers inherit this handler, and SLURM signals them too
            return
        self.reached = True
        if signal.getsignal(signal.SIGTERM) == self._idle:
            self._requeue(number, frame)
            return
        signal.alarm(self._patience)
        signal.raise_signal(signal.SIGTERM)

    def _lose_patience(self, number: int, frame: FrameType | None) -> None:
        self._requeue(self._number, frame)
