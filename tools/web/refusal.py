"""A request that is refused: the answer, also to a client that is still sending."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

DRAIN_SECONDS, DRAIN_BYTES = 3.0, 256 * 2**20  # how long a refused body is read on, so that its sender sees the answer


class Refused(Exception):
    """The request cannot be answered.

    Attributes:
        status: of HTTP.
        code: one word by which the page finds its translation.
        sentence: what is wrong and what to do.
    """

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.code, self.sentence = status, code, sentence


class Gone(Exception):
    """The client has closed the connection: nobody waits for an answer."""


class Refusal(JSONResponse):
    """The answer to a refused request. The connection is closed after it.

    Closing it while the client sends would destroy the answer on its way. So the rest of the body is read and thrown
    away for a moment first.
    """

    def __init__(self, refused: Refused) -> None:
        headers = {"connection": "close"} | ({"retry-after": "1"} if refused.status == 503 else {})
        super().__init__({"error": refused.code, "message": refused.sentence}, refused.status, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = b"" if scope["method"] == "HEAD" else self.body
        await send({"type": "http.response.body", "body": body, "more_body": True})
        if scope["method"] not in ("GET", "HEAD"):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_drain(receive), DRAIN_SECONDS)
        await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> None:
    drained = 0
    while drained < DRAIN_BYTES:
        message = await receive()
        drained += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
