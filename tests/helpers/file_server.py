"""A web server on this machine for files of a test, and torch.hub's cache in a folder of its own."""

import contextlib
import http.server
import threading
from functools import partial

import pytest
import torch


class Recorder(http.server.SimpleHTTPRequestHandler):
    requests: list[str] = []

    def log_message(self, *_):
        self.requests.append(self.path)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(address, served folder, requests so far); torch.hub's cache is a folder of the test."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setattr(Recorder, "requests", [])
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(partial(Recorder, directory=str(folder))) as address:
        yield address, folder, Recorder.requests


@contextlib.contextmanager
def serving(handler):
    """The address at which a request handler answers."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
