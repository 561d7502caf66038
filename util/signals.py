"""Clean stops: what a command does when a scheduler, a launcher or Ctrl-C sends a signal, from its start to its end.

`answer_signals` covers the imports, `CommandSignals` the rest of the command, and `StopSignals`, inside of it, a loop
that can save its state. This module imports nothing that takes long, so that `main.py` can begin with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

STOP = ("SIGTERM", "SIGINT")
SAVE = ("SIGUSR1",)  # SLURM's --signal=USR1@SECONDS sends it before the time limit; absent on Windows
ECHO = 1.0  # seconds; under a launcher, Ctrl-C reaches a process twice: from the terminal and from the launcher


class StopRequested(BaseException):
    """The command was asked to stop, has saved its state if it has one, and ends.

    Not an `Exception`, so that nothing on the way mistakes it for an error.

    Attributes:
        code: the exit code: 0 if the state is saved, else 128 + the signal's number.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


def is_main_process() -> bool:
    """As `util.dist.is_main_process`; True as long as that is not imported."""
    dist = sys.modules.get("util.dist")
    return dist is None or dist.is_main_process()


def answer_signals() -> None:
    """From now on, until the process is gone: SIGTERM and SIGINT end it with one sentence, SIGUSR1 does not end it.

    To be called first in a command, before imports that take seconds. Contexts of this module replace the handlers.
    """
    _install(_answer)


def _answer(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    if name in SAVE:
        _say(f"{name}: there is nothing to save yet")
        return
    _say(f"{name}: stopped while the program was loading; nothing was changed")
    os._exit(128 + number)


class CommandSignals:
    """A context for all of a command outside of a loop that handles signals itself.

    SIGTERM and SIGINT raise StopRequested at once, since there is nothing to save; a second SIGINT raises
    KeyboardInterrupt. SIGUSR1 is answered that there is nothing to save. Requests are handed on to a `StopSignals` that
    is entered inside. When that is left, the outcome of the command is decided: signals no longer change it.

    Attributes:
        sentence: what a stop means at this time.
        advice: what happens to a request to save.
        stop, save: as for `StopSignals`.
        over: the outcome is decided.
    """

    def __init__(self) -> None:
        self.sentence = "stopped at the start; nothing was changed"
        self.advice = "there is nothing to save yet"
        self.stop = self.save = self.over = False
        self._interrupted_at: float | None = None
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> CommandSignals:
        self._before = _install(self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over = True
        for number, handler in self._before.items():  # after `answer_signals`: the command ends with its own exit code
            signal.signal(number, signal.SIG_IGN if handler is _answer else handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.over or os.getpid() != self._process:  # a forked process inherits this handler
            return
        name = signal.Signals(number).name
        if name in SAVE:
            self.save = True
            _say(f"{name}: {self.advice}")
            return
        if self.stop:  # it is ending
            if name == "SIGINT" and self._interrupted_at and time.monotonic() - self._interrupted_at > ECHO:
                raise KeyboardInterrupt
            return
        self.stop = True
        self._interrupted_at = time.monotonic()
        raise StopRequested(f"{name}: {self.sentence}", 128 + number)


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
        self._before = _install(self._handle)
        command = self._command()
        if command is not None:
            self.stop, self.save = command.stop, command.save
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        command = self._command()
        if command is not None:
            command.over = True
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _command(self) -> CommandSignals | None:
        """The context around this one, if any."""
        owner = getattr(self._before.get(signal.SIGTERM), "__self__", None)
        return owner if isinstance(owner, CommandSignals) else None

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
            _say(f"{name}: finishing this step, then saving and stopping{again}")


def _install(handler: Any) -> dict[int, Any]:
    """Handle the signals with `handler`; returns the handlers before, none outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [getattr(signal, name) for name in (*STOP, *SAVE) if hasattr(signal, name)]
    return {number: signal.signal(number, handler) for number in numbers}


def _say(sentence: str) -> None:
    if is_main_process():  # not through sys.stderr, whose lock the interrupted code may hold
        os.write(2, f"\n{sentence}\n".encode())


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
