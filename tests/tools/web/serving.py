"""The page's server in a thread of the test, with detectors that only pretend, and pictures."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import numpy as np
from PIL import Image

from datasets.shapes import draw_scene
from tools.web.app import build_app
from tools.web.server import PatientProtocol, listen, make_server
from tools.web.turns import Turns
from tools.web.upload import Uploads

Answer = tuple[int, dict[str, str], Any]  # status, headers in lower case, JSON or bytes


class Pretender:
    """Answers without looking, once it is released, and counts who asks at the same time."""

    def __init__(self, name: str = "cat", released: bool = True) -> None:
        self.name, self.gate = name, threading.Event()
        self.asked = self.now = self.most = 0
        if released:
            self.gate.set()

    def about(self) -> dict[str, Any]:
        category = {"id": 1, "name": self.name, "label": self.name, "color": "#ff0000", "predicted": True}
        return {"categories": [category], "attention": False, "device": "cpu", "min_score": 0.05}

    def detect(self, content: bytes) -> dict[str, Any]:
        self.asked, self.now = self.asked + 1, self.now + 1
        self.most = max(self.most, self.now)
        self.gate.wait(60)
        self.now -= 1
        found = {"category_id": 1, "bbox": [2.0, 2.0, 20.0, 20.0], "area": 400.0, "score": 0.9, "query": 0}
        return {"width": 96, "height": 96, "objects": [found], "milliseconds": {"model": 1.0}}

    attention = detect


@contextmanager
def serving(
    detector: Any, *, max_bytes: int = 1_000_000, queue: int = 4, headers: float = 10, **limits: float
) -> Iterator[int]:
    """Context with the port of a server; `limits` are those of `Uploads`."""
    protocol = type("Protocol", (PatientProtocol,), {"header_seconds": headers})
    with listen("127.0.0.1", 0) as listening:
        server = make_server(build_app(detector, Uploads(max_bytes, **limits), Turns(queue)), protocol=protocol)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def ask(port: int, path: str = "/api/detect", body: Any = None, method: str = "", **headers: str) -> Answer:
    """One request; a body that is an iterator is sent in chunks."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    chunked = body is not None and not isinstance(body, bytes)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, named, encode_chunked=chunked)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    found = {name.lower(): value for name, value in response.getheaders()}
    return response.status, found, json.loads(content) if "json" in found.get("content-type", "") else content


def run_apart(work: Coroutine[Any, Any, Any]) -> Any:
    """`asyncio.run` in a thread of its own, since Playwright runs a loop in the main one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scene(number: int = 1) -> bytes:
    """A drawn picture as PNG."""
    return encoded(draw_scene(np.random.default_rng([5, number]))[0])
