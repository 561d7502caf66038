"""Answers of a broken or hostile server, and what loading a checkpoint from an address makes of them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from tools.reliability.fuzzing.tiny_checkpoint import checkpoint, saved
from util.checkpoint import load_checkpoint
from util.errors import CheckpointError

WAYS = ("intact", "cut", "longer", "shorter", "no length", "page", "missing", "busy", "loop", "empty", "noise", "moved")
SLOW = ("silent", "endless", "stuck")  # the limits end these
PATIENCE = 60  # seconds; a busy machine must not make an answer late
NAMES = (
    *("model.pth", "a-HASH.pth", "a-01234567.pth", "checkpoint.pth?token=secret", "model.pth#part", "a%20b.pth"),
    *("x" * 250 + ".pth", "..", "a/..", "", "?x", "%2e%2e%2fmodel.pth", "%1b[31mFORGED.pth", "a%0aerror:%20FORGED"),
)


@cache
def _body() -> bytes:
    return saved(checkpoint())


def make_answer(rng: random.Random) -> bytes:
    """A description of what the server does, and of the address's last part."""
    name = rng.choice(NAMES[:4] if rng.random() < 0.6 else NAMES)
    name = name.replace("HASH", hashlib.sha256(_body()).hexdigest()[:8])
    way, at, more = rng.choice((*WAYS, *WAYS, *SLOW)), rng.random(), rng.randrange(9999)
    return json.dumps({"way": way, "name": name, "at": at, "more": more}).encode()


class _Answers(BaseHTTPRequestHandler):
    case: dict[str, Any] = {"way": "intact"}

    def do_GET(self) -> None:  # the name that http.server asks for
        case, body = self.case, _body()
        way, cut = case["way"], int(len(body) * case.get("at", 1))
        if way in ("missing", "busy"):
            self._answer(404 if way == "missing" else 503, b"FORGED\x1b[31m")
        elif way == "loop" or (way == "moved" and not self.path.endswith("moved")):
            self.send_response(302)
            self.send_header("Location", self.path if way == "loop" else "/moved")
            self.end_headers()
        elif way == "page":
            self._answer(200, b"<html>Please log in. \x1b[31mFORGED</html>")
        elif way in ("empty", "noise"):
            self._answer(200, b"" if way == "empty" else random.Random(case["more"]).randbytes(case["more"]))
        elif way == "cut":
            self._answer(200, body[:cut], len(body))
        elif way == "longer":
            self._answer(200, body + bytes(case["more"]), len(body) + case["more"] + 1)
        elif way == "silent":
            self._wait()
        elif way == "endless":
            self._answer(200, body, None)
            while self._send(bytes(2**16)):
                pass
        elif way == "stuck":
            self._answer(200, body[:cut], len(body))
            self._wait()
        elif way == "shorter":
            self._answer(200, body, cut)
        elif way == "no length":
            self._answer(200, body[:cut], None)
        else:
            self._answer(200, body)

    def _answer(self, status: int, body: bytes, length: int | None = -1) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length == -1 else length))
        self.end_headers()
        self._send(body)

    def _send(self, part: bytes) -> bool:
        """False if nobody listens any more."""
        try:
            self.wfile.write(part)
        except OSError:
            return False
        return True

    def _wait(self) -> None:
        """Say nothing until the other side has gone, or the tool ends."""
        self.connection.recv(1)

    def log_message(self, *args: Any) -> None:
        pass


@cache
def _address() -> str:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def read_answer(path: Path) -> None:
    """Load from the address; if that fails, what it left behind must not spoil a second try with an intact answer."""
    case = json.loads(path.read_bytes())
    folder = path.with_suffix("")
    torch.hub.set_dir(folder)
    url = f"{_address()}/{path.stem}/{case['name']}"
    try:
        _Answers.case = case
        patience = 0.2 if case["way"] in ("silent", "stuck") else PATIENCE
        os.environ |= {"DETR_DOWNLOAD_MB": "1", "DETR_DOWNLOAD_SECONDS": str(patience)}
        try:
            loaded = load_checkpoint(url)
        except CheckpointError:
            _Answers.case = {"way": "intact"}
            os.environ["DETR_DOWNLOAD_SECONDS"] = str(PATIENCE)
            _try_again(url, case["way"])
            raise
        if loaded.keys() != checkpoint().keys():
            raise AssertionError(f"an answer of the kind {case['way']!r} was taken for a checkpoint")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _try_again(url: str, way: str) -> None:
    try:
        load_checkpoint(url)
    except CheckpointError as error:
        shutil.rmtree(torch.hub.get_dir(), ignore_errors=True)
        try:
            load_checkpoint(url)
        except CheckpointError:
            return  # the address itself is refused
        raise AssertionError(f"what an answer of the kind {way!r} left behind spoils the next try") from error
