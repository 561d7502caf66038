"""What a command does first, before imports that take seconds. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from util.signals import answer_signals


def begin(parse: Callable[[], Any]) -> None:
    """Answer signals from now on, and let `parse` read the command line, so that help and refusals come at once.

    Args:
        parse: ends the process after `--help` and if the command line is wrong. The command calls it again later.
    """
    answer_signals()
    parse()
