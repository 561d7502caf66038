"""The page and its three questions: which model, what is in this picture, where did the model look."""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tools.web.guard import Guard
from tools.web.looking import Detector
from tools.web.memory import Leftovers
from tools.web.refusal import Gone, Refusal, Refused
from tools.web.turns import Turns
from tools.web.upload import Uploads
from util.text import printable_lines

STATIC = Path(__file__).with_name("static")
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def build_app(
    detector: Detector,
    uploads: Uploads,
    turns: Turns,
    *,
    names: Iterable[str] = (),
    threshold: float = 0.5,
) -> Starlette:
    """The application.

    Args:
        detector: looks at pictures, one at a time, in a thread of its own.
        uploads: receives them.
        turns: whose picture is next.
        names: trusted hosts besides this machine's own.
        threshold: where the page's slider starts.
    """
    leftovers = Leftovers()
    worker = ThreadPoolExecutor(1, thread_name_prefix="detector")
    about = detector.about() | {"threshold": threshold, "max_bytes": uploads.max_bytes}

    def answer_to(work: Callable[[bytes], dict[str, Any]], content: bytes) -> dict[str, Any]:
        try:
            return work(content)
        except Refused:
            raise
        except Exception as error:  # a bug of ours must not end the server either
            print(printable_lines(traceback.format_exc()), file=sys.stderr)
            raise Refused(500, "failed", "the server failed on this picture; its terminal shows why") from error

    def model(request: Request) -> Response:
        return JSONResponse(about)

    async def look(request: Request, work: Callable[[bytes], dict[str, Any]]) -> Response:
        turns.check()  # before the picture is received
        start = time.perf_counter()
        try:
            async with uploads.body(request) as content:
                received = time.perf_counter()
                async with turns.turn():
                    if await request.is_disconnected():
                        raise Gone
                    waited = time.perf_counter()
                    answer = await asyncio.get_running_loop().run_in_executor(worker, answer_to, work, content)
        finally:
            leftovers.give_back_soon()
        if "milliseconds" in answer:
            before = {"receive": received - start, "wait": waited - received}
            before = {name: round(1000 * seconds, 2) for name, seconds in before.items()}
            answer["milliseconds"] = before | answer["milliseconds"]
        return JSONResponse(answer)

    async def detect(request: Request) -> Response:
        return await look(request, detector.detect)

    async def attention(request: Request) -> Response:
        return await look(request, detector.attention)

    routes = [
        Route("/api/model", model),
        Route("/api/detect", detect, methods=["POST"]),
        Route("/api/attention", attention, methods=["POST"]),
        *_files(),
    ]
    errors = {Refused: _refused, Gone: _gone, HTTPException: _not_found}
    return Starlette(routes=routes, middleware=[Middleware(Guard, names=names)], exception_handlers=errors)


def _files() -> Iterable[Route]:
    """The files of the page, held in memory: no request reaches the disk."""
    for path in sorted(STATIC.iterdir()):
        if path.suffix not in KINDS:
            continue
        content, kind = path.read_bytes(), KINDS[path.suffix]

        def answer(request: Request, content: bytes = content, kind: str = kind) -> Response:
            return Response(content, media_type=kind)

        yield Route("/" if path.name == "index.html" else f"/{path.name}", answer)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return Refusal(error)


def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = "there is nothing at this address" if error.status_code == 404 else "this method is not allowed here"
    return Refusal(Refused(error.status_code, "address", sentence))
