"""Run `main.py` in a fork of this process, which starts faster than Python and can be killed safely."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import main as detr
from tools.command import ToolError

TIME_LIMIT = 900.0  # seconds; a run of seconds that takes longer hangs, however busy the machine is
INTERVAL = 0.001  # seconds between checks


class ForkedRun:
    """`main.run` in a fork of this process; its output goes to the file `log`."""

    def __init__(self, command: list[str], log: Path, prepare: Callable[[], None] | None = None):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")
        self.log = log
        self.code: int | None = None  # the exit code, or minus the signal that ended it
        self.started = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run_child(command, log, prepare)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def running(self) -> bool:
        """Check whether the run has ended; if so, set `code`."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait for `until()` or the end of the run; returns True if it is still running.

        Raises:
            ToolError: the run hangs; it is killed.
        """
        while self.running() and not until():
            if self.seconds > TIME_LIMIT:
                self.send(signal.SIGKILL)
                raise ToolError(f"a run did not end in {TIME_LIMIT:.0f} seconds, see {self.log}")
            time.sleep(INTERVAL)
        return self.running()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the run has ended."""
        if self.running():
            os.kill(self.pid, number)

    def text(self) -> str:
        return self.log.read_text(errors="replace")


def _run_child(command: list[str], log: Path, prepare: Callable[[], None] | None) -> None:
    """What the forked process does; it does not return."""
    code = 1
    try:
        with log.open("a", buffering=1) as sys.stdout:
            sys.stderr = sys.stdout
            try:
                if prepare is not None:
                    prepare()
                code = detr.run(command)
            except BaseException:
                traceback.print_exc()
    finally:
        os._exit(code)
