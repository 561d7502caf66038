"""What a command does first, before imports that take seconds. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from util.signals import answer_signals
from util.start_up.threads import wait_briefly


def begin(parse: Callable[[], Any]) -> None:
    """Answer signals from now on, decide how threads wait, and let `parse` read the command line.

    So help and refusals come at once.

    Args:
        parse: ends the process after `--help` and if the command line is wrong. The command calls it again later.
    """
    answer_signals()
    wait_briefly()
    parse()
