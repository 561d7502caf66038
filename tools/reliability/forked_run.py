"""A run of `main.py` in a fork of this process: no second start of Python, and a death that harms nobody else."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import main as detr

PATIENCE = 120.0  # seconds without an end: the run hangs
STEP = 0.001  # seconds between looks


class ForkedRun:
    """`main.run` in a fork of this process; what it prints goes to the file `said`."""

    def __init__(self, command: list[str], said: Path, prepare: Callable[[], None] | None = None):
        said.parent.mkdir(parents=True, exist_ok=True)
        said.write_text("")
        self.said = said
        self.code: int | None = None  # the exit code, or minus the signal that ended it
        self.started = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be_main(command, said, prepare)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def running(self) -> bool:
        """Looks whether it has ended, and notes how."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Until `until()` or its end; True if it still runs. A run that takes forever is killed and is an error."""
        while self.running() and not until():
            if self.seconds > PATIENCE:
                self.send(signal.SIGKILL)
                raise RuntimeError(f"a run did not end in {PATIENCE:.0f} seconds, see {self.said}")
            time.sleep(STEP)
        return self.running()

    def send(self, number: signal.Signals) -> None:
        """To the process, or to what is left of it until `running` has noted its end."""
        if self.running():
            os.kill(self.pid, number)

    def text(self) -> str:
        return self.said.read_text(errors="replace")


def _be_main(command: list[str], said: Path, prepare: Callable[[], None] | None) -> None:
    """The child's whole life."""
    code = 1
    try:
        with said.open("a", buffering=1) as sys.stdout:
            sys.stderr = sys.stdout
            try:
                if prepare is not None:
                    prepare()
                code = detr.run(command)
            except BaseException:
                traceback.print_exc()
    finally:
        os._exit(code)
