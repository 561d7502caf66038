"""Checkpoints by their address: torch.hub's cache, the hash in the name, and what is refused."""

import hashlib
import http.server
import io
import threading
from functools import partial

import pytest
import torch
from checkpoint_files import Canary, published_checkpoint, small_model

from util.checkpoint import CheckpointError, load_checkpoint


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
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Recorder, directory=str(folder)))
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}", folder, Recorder.requests
    serving.shutdown()
    thread.join()
    serving.server_close()


def serve(folder, content, good_hash=True):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    digest = hashlib.sha256(buffer.getvalue() if good_hash else b"another file").hexdigest()[:8]
    (folder / f"detr-{digest}.pth").write_bytes(buffer.getvalue())
    return f"detr-{digest}.pth"


def test_an_address_is_downloaded_once_and_its_hash_checked(server):
    address, folder, requests = server
    name = serve(folder, published_checkpoint(small_model()))
    for _ in range(2):
        loaded = load_checkpoint(f"{address}/{name}")
    assert loaded["args"]["output_dir"] == "out/run"
    assert requests == [f"/{name}"]


def test_a_download_with_the_wrong_hash_is_refused_and_not_kept(server, tmp_path):
    address, folder, _ = server
    name = serve(folder, {"model": {}}, good_hash=False)
    with pytest.raises(CheckpointError, match="does not have the hash in its name"):
        load_checkpoint(f"{address}/{name}")
    assert not list((tmp_path / "hub").rglob("*.pth"))


def test_a_download_that_would_run_code_is_refused(server, tmp_path):
    address, folder, _ = server
    name = serve(folder, {"model": Canary(tmp_path / "canary")})
    with pytest.raises(CheckpointError, match="is not run"):
        load_checkpoint(f"{address}/{name}")
    assert not (tmp_path / "canary").exists()


def test_an_address_without_a_file_says_so(server):
    with pytest.raises(CheckpointError, match="absent.pth could not be downloaded .*404.*pass its path"):
        load_checkpoint(f"{server[0]}/absent.pth")


def test_a_damaged_file_in_the_cache_is_named_so_that_it_can_be_deleted(server, tmp_path):
    cached = tmp_path / "hub" / "checkpoints" / "detr.pth"
    cached.parent.mkdir(parents=True)
    cached.write_text("half a page")
    with pytest.raises(CheckpointError, match=f"is text .*: delete {cached}"):
        load_checkpoint(f"{server[0]}/detr.pth")
