"""A scheduler's time limit: training saves and stops, then the job is requeued."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


class TimeLimit:
    """Inside the `with` block, the signal that announces the time limit stops the training (see `util.signals`).

    The previous handler of that signal, with which submitit requeues the job, is called later: by `requeue`; at once if
    no training is running; or if the training has not stopped after three quarters of the notice. Without a previous
    handler, the signal is left alone.

    Args:
        number: the signal.
        notice: seconds from the signal to the time limit.

    Attributes:
        reached: True once the signal has arrived.
    """

    def __init__(self, number: int, notice: float) -> None:
        self.reached = False
        self._number = number
        self._grace_period = max(1, round(0.75 * notice))  # seconds
        self._process = os.getpid()

    def __enter__(self) -> TimeLimit:
        self._requeue = signal.getsignal(self._number)
        self._idle = signal.getsignal(signal.SIGTERM)  # a running training replaces this handler
        if callable(self._requeue):
            self._alarm = signal.signal(signal.SIGALRM, self._on_grace_period_over)
            signal.signal(self._number, self._on_time_limit)
        return self

    def __exit__(self, *exception: object) -> None:
        if callable(self._requeue):
            signal.alarm(0)
            signal.signal(signal.SIGALRM, self._alarm)
            # The work is done or has failed: a signal from now on must not requeue the job.
            signal.signal(self._number, signal.SIG_IGN)

    def requeue(self) -> None:
        """Requeue the job and exit this process without a result.

        submitit's handler requeues in the job's first process and does nothing in the others.
        """
        self._requeue(self._number, None)
        sys.exit(0)

    def _on_time_limit(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # loader workers inherit this handler and get SLURM's signal too
            return
        self.reached = True
        if signal.getsignal(signal.SIGTERM) == self._idle:
            self._requeue(number, frame)
            return
        signal.alarm(self._grace_period)
        signal.raise_signal(signal.SIGTERM)

    def _on_grace_period_over(self, number: int, frame: FrameType | None) -> None:
        self._requeue(self._number, frame)
