"""One at a time, in the order of arrival; a few may wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tools.web.refusal import Refused


class Turns:
    """A short queue.

    Args:
        queue: how many may wait.
    """

    def __init__(self, queue: int) -> None:
        self.queue = queue
        self._here = 0  # waiting and at work
        self._lock = asyncio.Lock()

    def check(self) -> None:
        """Refused (503): nobody else may wait now."""
        if self._here > self.queue:
            raise Refused(503, "busy", "the detector is busy and its queue is full: try again in a moment")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Context that is entered when it is one's turn.

        Raises:
            Refused: see `check`.
        """
        self.check()
        self._here += 1
        try:
            async with self._lock:
                yield
        finally:
            self._here -= 1
