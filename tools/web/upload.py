"""Receiving pictures: raw bytes, counted while they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from tools.web.refusal import Gone, Refused

PAUSE_SECONDS = 10.0  # without a byte
UPLOAD_SECONDS = 120.0  # for the whole body, such as 20 MB from a phone
IN_MEMORY = 8  # times the largest picture: what all requests together may hold


class Uploads:
    """The bodies of all requests.

    Args:
        max_bytes: of one body.
        pause, whole: seconds that a body may pause, and that it may take.
    """

    def __init__(self, max_bytes: int, *, pause: float = PAUSE_SECONDS, whole: float = UPLOAD_SECONDS) -> None:
        self.max_bytes, self.pause, self.whole = max_bytes, pause, whole
        self.held = 0  # bytes, of all requests

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Context with the whole body.

        Raises:
            Refused: it is too large (413), too slow (408), empty (400), or there is no room in memory now (503).
            Gone: the client has left.
        """
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.max_bytes:  # of at most 20 digits, the server's limit
            raise self._too_large()
        parts: list[bytes] = []
        size, deadline = 0, time.monotonic() + self.whole
        try:
            while True:
                try:
                    message = await asyncio.wait_for(request.receive(), min(self.pause, deadline - time.monotonic()))
                except asyncio.TimeoutError:
                    raise Refused(408, "slow", "the picture came too slowly: send it again") from None
                if message["type"] == "http.disconnect":
                    raise Gone
                part = message.get("body", b"")
                if size + len(part) > self.max_bytes:
                    raise self._too_large()
                if self.held + len(part) > IN_MEMORY * self.max_bytes:
                    raise Refused(503, "busy", "too many pictures arrive at once: try again in a moment")
                self.held += len(part)
                size += len(part)
                parts.append(part)
                if not message.get("more_body"):
                    break
            if not size:
                raise Refused(
                    400, "empty", "the request holds no picture: send the bytes of a picture file as its body"
                )
            yield b"".join(parts)
        finally:
            self.held -= size

    def _too_large(self) -> Refused:
        return Refused(
            413,
            "too_large",
            f"the picture file is larger than the limit of {self.max_bytes / 1e6:g} MB: make it smaller",
        )
