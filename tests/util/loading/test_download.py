"""Downloads: their names in the cache, what is checked at every use, and the limits of time and size."""

import http.server
import os
import shutil
import threading
from types import SimpleNamespace

import pytest
import torch

from util.errors import CheckpointError
from util.loading import download as download_module
from util.loading.download import cache_path, download

pytest_plugins = ["tests.helpers.file_server"]  # the fixture `server`


def cached_files(tmp_path):
    folder = tmp_path / "hub" / "checkpoints"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# ---- names ----


@pytest.mark.parametrize(
    "name", ["detr-r50-e632da11.pth", "resnet50-0676ba61.pth", f"a.b-{'0f' * 32}.pth"], ids=lambda name: name[:20]
)
def test_a_name_with_a_hash_is_kept_as_torch_hub_keeps_it(name):
    assert cache_path(f"https://host/x/{name}?download=1").name == name


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint.pth",
        "run-20240105.pth",
        "run-202401051230.pth",
        "model",
        ".pth",
        "a-0123.pth",
        "%2e%2e%2fx-0123abcd.p",
    ],
)
def test_any_other_name_comes_from_the_whole_address(name):
    addresses = [
        f"https://a/{name}",
        f"https://b/{name}",
        f"https://a/x/{name}",
        f"http://a/{name}",
        f"https://a/{name}?v=2",
    ]
    paths = {cache_path(address) for address in addresses}
    assert len(paths) == len(addresses)
    assert all(path.parent.name == "checkpoints" and "%" not in path.name for path in paths)
    assert cache_path(f"https://a/{name}#part") == cache_path(f"https://a/{name}")


@pytest.mark.parametrize(
    "name", ["x" * 5000, "x" * 5000 + ".pth", "a." + "x" * 5000, "日本.pth", "a\\..\\b.pth", "a b\n.pth"]
)
def test_any_name_becomes_a_plain_short_one(name):
    kept = cache_path(f"https://host/{name}").name
    assert len(kept) < 130 and kept.isascii() and not set(kept) & set("/\\ \n%")


@pytest.mark.parametrize(
    "address", ["http://host/x/..", "http://host/x/.", "http://host/%2e%2e", "http:///a.pth", "http://host"]
)
def test_an_address_without_a_file_name_is_refused_without_advice_to_delete(address):
    with pytest.raises(CheckpointError, match="contains no file name: add the name") as caught:
        download(address)
    assert "delete" not in str(caught.value)


# ---- the cache ----


def test_a_file_without_a_hash_follows_the_server(server, capsys):
    address, folder, _ = server
    for content in ("first", "first", "second, longer"):
        (folder / "run.pth").write_text(content)
        os.utime(folder / "run.pth", (10**9, 10**9))
        assert download(f"{address}/run.pth").read_text() == content
    assert capsys.readouterr().out.count("downloading ") == 2  # the same version is not sent again


def test_without_an_answer_the_copy_is_used_and_this_is_said(server, capsys):
    address, folder, _ = server
    (folder / "run.pth").write_text("first")
    download(f"{address}/run.pth")
    (folder / "run.pth").unlink()
    assert download(f"{address}/run.pth").read_text() == "first"
    assert "could not be downloaded again (HTTP Error 404" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["first but replaced", "firsT", "", None])
def test_a_copy_that_was_changed_is_not_used(server, damage):
    address, folder, _ = server
    (folder / "run.pth").write_text("first")
    path = download(f"{address}/run.pth")
    path.unlink() if damage is None else path.write_text(damage)
    assert download(f"{address}/run.pth").read_text() == "first"
    path.write_text("changed, and the server is gone")
    (folder / "run.pth").unlink()
    with pytest.raises(CheckpointError, match="could not be downloaded"):
        download(f"{address}/run.pth")


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b"[" * 10**5, b'{"url": 1}', b"\xff"])
def test_a_damaged_record_is_no_record(server, record):
    address, folder, _ = server
    (folder / "run.pth").write_text("first")
    path = download(f"{address}/run.pth")
    path.with_name(f"{path.name}.json").write_bytes(record)
    assert download(f"{address}/run.pth").read_text() == "first"


@pytest.mark.parametrize("where", ["os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError(28, "No space left on device")], ids=str)
def test_an_interrupted_download_leaves_nothing(server, tmp_path, monkeypatch, where, error):
    address, folder, _ = server
    (folder / "run.pth").write_text("first")

    def fail(*_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(where, fail)
        with pytest.raises(CheckpointError if isinstance(error, OSError) else error):
            download(f"{address}/run.pth")
    assert cached_files(tmp_path) == []
    assert download(f"{address}/run.pth").read_text() == "first"


def test_a_full_disk_is_seen_before_it_is_full(server, tmp_path, monkeypatch):
    address, folder, _ = server
    (folder / "run.pth").write_text("first")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=63 * 2**20))
    with pytest.raises(
        CheckpointError, match=r"run\.pth could not be downloaded \(only 63 MB are free in .*TORCH_HOME"
    ):
        download(f"{address}/run.pth")
    assert cached_files(tmp_path) == []


# ---- servers that misbehave ----


class Odd(http.server.BaseHTTPRequestHandler):
    """Answers as the path says; what is sent depends on the name alone."""

    over = threading.Event()

    def log_message(self, *_):
        pass

    def head(self, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_GET(self):
        try:
            getattr(self, self.path.strip("/").partition(".")[0])()
        except OSError:
            pass  # the client has left

    def silent(self):
        self.over.wait()

    def silent_later(self):
        self.head(Content_Length=10**6)
        self.wfile.write(bytes(10**5))
        self.over.wait()

    def dripping_head(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        while not self.over.wait(0.05):
            self.wfile.write(b"X: y\r\n")

    def dripping(self):
        self.head(Content_Length=10**6)
        while not self.over.wait(0.05):
            self.wfile.write(b"x")

    def endless(self):
        self.head()
        while not self.over.is_set():
            self.wfile.write(bytes(2**16))

    def large(self):
        self.head(Content_Length=2**40)
        self.over.wait()

    def cut(self):
        self.head(Content_Length=1000)
        self.wfile.write(bytes(400))

    def empty(self):
        self.head(Content_Length=0)

    def partial(self):
        self.head(206, Content_Length=4)
        self.wfile.write(b"part")

    def local(self):
        self.head(302, Location="file:///etc/hostname")

    def ftp(self):
        self.head(302, Location="ftp://127.0.0.1/a")

    def loop(self):
        self.head(302, Location=f"{self.path}x")

    def moved(self):
        self.head(302, Location="/fine.pth")

    def fine(self):
        self.head(Content_Length=4)
        self.wfile.write(b"fine")

    def garbage(self):
        self.wfile.write(b"\x00\xff not HTTP \x1b[2J\r\n\r\n")

    def slow_but_fine(self):
        self.head(Content_Length=4)
        for _ in range(4):
            self.over.wait(0.01)
            self.wfile.write(b"s")


@pytest.fixture
def odd(tmp_path, monkeypatch):
    monkeypatch.setattr(Odd, "over", threading.Event())
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}"
    Odd.over.set()
    serving.shutdown()
    thread.join()
    serving.server_close()


@pytest.mark.parametrize("kind", ["silent", "silent_later", "dripping_head", "dripping"])
def test_a_silent_server_is_not_waited_for(odd, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("DETR_DOWNLOAD_SECONDS", "0.4")
    with pytest.raises(CheckpointError, match=rf"{kind}\.pth could not be downloaded \(the server sent almost nothing"):
        download(f"{odd}/{kind}.pth")
    assert cached_files(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("endless", "does not announce the size and sends more than 3 MB; DETR_DOWNLOAD_MB allows more"),
        ("large", "it has 1,048,576 MB; DETR_DOWNLOAD_MB allows more than 3"),
        ("cut", "it was cut off after 400 of 1,000 bytes; try again"),
        ("empty", "the server sent an empty file"),
        ("partial", "the server answers with status 206"),
        ("local", "file:///etc/hostname. is not allowed"),
        ("ftp", "it redirects to ftp://127.0.0.1/a, which is no http"),
        ("loop", "redirect"),
        ("garbage", r"\\x1b\[2J"),
    ],
)
def test_what_a_server_may_not_do_is_a_sentence_and_leaves_nothing(odd, tmp_path, monkeypatch, kind, sentence):
    monkeypatch.setenv("DETR_DOWNLOAD_MB", "3")
    with pytest.raises(CheckpointError, match=rf"{kind}\.pth could not be downloaded \(.*{sentence}") as caught:
        download(f"{odd}/{kind}.pth")
    assert cached_files(tmp_path) == []
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("kind", ["fine", "moved", "slow_but_fine"])
def test_what_a_server_may_do(odd, kind):
    assert download(f"{odd}/{kind}.pth").read_text() in ("fine", "ssss")


def test_the_limits_hold_without_the_variables(monkeypatch):
    for name in ("DETR_DOWNLOAD_MB", "DETR_DOWNLOAD_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    silence, announced, unannounced = download_module._limits()
    assert silence <= 15 and announced == 2 * 2**30 and unannounced == 2**28


@pytest.mark.parametrize("name", ["DETR_DOWNLOAD_MB", "DETR_DOWNLOAD_SECONDS"])
@pytest.mark.parametrize("value", ["much", "-1", "0", "nan"])
def test_a_variable_that_is_no_limit_is_refused(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(CheckpointError, match=f"{name} is '{value}': set it to a number above 0"):
        download("http://127.0.0.1:9/a.pth")


def test_an_address_that_nobody_answers_is_a_sentence():
    for address in ("http://127.0.0.1:9/a.pth", "http://host:port/a.pth", "http://[/a.pth"):
        with pytest.raises(CheckpointError, match="could not be downloaded|is not an address"):
            download(address)
