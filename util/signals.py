"""Clean stops: what a scheduler, a launcher or Ctrl-C asks for is heard at once and done between two steps."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from util.dist import is_main_process

STOP = ("SIGTERM", "SIGINT")
SAVE = ("SIGUSR1",)  # what SLURM's --signal=USR1@SECONDS sends ahead of a time-out; absent on Windows
ECHO = 1.0  # seconds; Ctrl-C under a launcher reaches a process twice, from the terminal and from the launcher


class StopRequested(Exception):
    """The run was asked to stop, has saved its state, and ends."""


class StopSignals:
    """Inside the `with` block, signals become wishes that the training loop reads once a step.

    SIGTERM and SIGINT: stop after this step. SIGUSR1: save after this step and go on. A second SIGINT raises
    KeyboardInterrupt on the spot. Handlers can be set in the main thread only; in another one nothing is heard.

    Attributes:
        stop: a stop is wished for.
        save: a save is wished for; whoever saves sets it back.
    """

    def __init__(self) -> None:
        self.stop = False
        self.save = False
        self._interrupted_at: float | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for name in (*STOP, *SAVE):
                if hasattr(signal, name):
                    number = getattr(signal, name)
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name in SAVE:
            self.save = True
            return
        if name == "SIGINT":
            now = time.monotonic()
            if self._interrupted_at is not None and now - self._interrupted_at > ECHO:
                raise KeyboardInterrupt
            self._interrupted_at = self._interrupted_at or now
        if not self.stop:
            self.stop = True
            again = "; Ctrl-C once more stops at once" if name == "SIGINT" else ""
            if is_main_process():  # past Python's own streams, in the middle of which the signal may have come
                os.write(2, f"\n{name}: finishing this step, then saving and stopping{again}\n".encode())


def ignore_in_worker() -> None:
    """For processes that load data: what reaches the whole group is the training process's to answer.

    Without this, workers die before the last step is done. A SIGTERM from the training process itself, which shuts its
    workers down with it, is obeyed.
    """
    for name in ("SIGINT", *SAVE, "SIGUSR2"):  # the last one is how submitit hears of a time limit
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # who has sent a signal is not to be learnt on macOS and Windows
        return

    started_by = multiprocessing.parent_process()
    parent = os.getppid() if started_by is None else started_by.pid

    def obey_parent() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)  # as torch's own workers answer their parent

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # else it would be answered before it is looked at
    threading.Thread(target=obey_parent, daemon=True).start()
