"""Giving memory back to the system when nobody asks."""

from __future__ import annotations

import asyncio

from util.compute.device import return_freed_memory

PAUSE = 1.0  # seconds without a request


class Leftovers:
    """What large or many pictures leave behind: freed, but kept by the C library for this process."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def give_back_soon(self) -> None:
        """Give it back once no request has ended for a moment."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(PAUSE, return_freed_memory)
