"""Clean stops: signals of a scheduler, a launcher or Ctrl-C set flags that the training loop reads between steps."""

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
SAVE = ("SIGUSR1",)  # SLURM's --signal=USR1@SECONDS sends it before the time limit; absent on Windows
ECHO = 1.0  # seconds; under a launcher, Ctrl-C reaches a process twice: from the terminal and from the launcher


class StopRequested(Exception):
    """The run was asked to stop, has saved its state, and ends."""


class StopSignals:
    """A context in which signals set flags that the training loop reads after each step.

    SIGTERM and SIGINT: stop after this step. SIGUSR1: save after this step and continue. A second SIGINT raises
    KeyboardInterrupt immediately. Python allows handlers in the main thread only; in other threads this does nothing.

    Attributes:
        stop: a stop was requested.
        save: a save was requested; the code that saves resets it.
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
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
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
            again = "; press Ctrl-C again to stop immediately" if name == "SIGINT" else ""
            if is_main_process():  # not through sys.stderr, whose lock the interrupted code may hold
                os.write(2, f"\n{name}: finishing this step, then saving and stopping{again}\n".encode())


def ignore_in_worker() -> None:
    """In data loader workers: ignore signals sent to the whole process group, which the training process handles.

    Otherwise the workers would die before the last step is done. A SIGTERM from the training process itself, which
    shuts down its workers with it, still ends them.
    """
    for name in ("SIGINT", *SAVE, "SIGUSR2"):  # submitit uses SIGUSR2 for its time limit
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS and Windows do not report who sent a signal
        return

    parent_process = multiprocessing.parent_process()
    parent = os.getppid() if parent_process is None else parent_process.pid

    def exit_on_parents_signal() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)  # like torch's own workers

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # so that sigwaitinfo receives it
    threading.Thread(target=exit_on_parents_signal, daemon=True).start()
