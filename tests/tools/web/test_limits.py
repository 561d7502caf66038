"""Hostile and clumsy requests: each is refused with one sentence, and the server goes on serving."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the page needs the extra web")
pytest.importorskip("uvicorn", reason="the page needs the extra web")

from tests.tools.web.serving import Pretender, ask, encoded, run_apart, scene, serving
from tools.web import refusal
from tools.web.server import KEPT
from tools.web.upload import IN_MEMORY


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refusal, "DRAIN_SECONDS", 0.3)
        with serving(Pretender(), max_bytes=100_000, pause=0.3, whole=1.0, headers=0.3) as port:
            yield port


@pytest.fixture(autouse=True)
def still_serving(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test with the common server, a picture is answered and the page is there."""
    yield
    if "port" in request.fixturenames:
        port = request.getfixturevalue("port")
        assert ask(port, body=scene())[0] == 200
        assert ask(port, "/")[0] == 200


def hello(port: int, text: bytes) -> tuple[socket.socket, bytes]:
    """A connection on which only `text` was sent, and what comes back until the server closes it."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(text)
        received = b""
        while part := connection.recv(65536):
            received += part
        return connection, received


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "a@127.0.0.1", "", "["])
def test_a_wrong_host_is_refused(port: int, host: str):
    status, headers, answer = ask(port, "/", Host=host)
    assert (status, answer["error"]) == (400, "host")
    assert "content-security-policy" in headers


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:1234", "[::1]:80"])
def test_this_machines_names_are_trusted(port: int, host: str):
    assert ask(port, "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:{port}"},  # another name than the host's
        {"Origin": "http://127.0.0.1"},  # another port
        {"Origin": "file://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_a_wrong_origin_is_refused(port: int, headers: dict[str, str]):
    filled = {name.replace("-", "_"): value.format(port=port) for name, value in headers.items()}
    status, _, answer = ask(port, body=scene(), **filled)
    assert (status, answer["error"]) == (403, "origin")


def test_the_pages_own_origin_is_right(port: int):
    assert ask(port, body=scene(), Origin=f"http://127.0.0.1:{port}", Sec_Fetch_Site="same-origin")[0] == 200


def test_every_answer_carries_the_policy(port: int):
    for path, body in (
        ("/", None),
        ("/page.js", None),
        ("/api/model", None),
        ("/nothing", None),
        ("/api/detect", b"x"),
    ):
        policy = ask(port, path, body)[1]
        rules = dict(rule.split(" ", 1) for rule in policy["content-security-policy"].split("; "))
        assert rules["default-src"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
        assert policy["x-content-type-options"] == "nosniff" and policy["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in policy


@pytest.mark.parametrize("path", ["/../arguments.py", "/%2e%2e/app.py", "//etc/passwd", "/static/page.js", "/app.py"])
def test_only_the_pages_files_are_given(port: int, path: str):
    status, _, answer = ask(port, path)
    assert status in (400, 404) and set(answer) == {"error", "message"}


def test_a_file_at_the_limit_is_taken_and_one_byte_more_is_not(port: int):
    assert ask(port, body=bytes(100_000))[0] == 200
    status, _, answer = ask(port, body=bytes(100_001))
    assert (status, answer["error"]) == (413, "too_large") and "0.1 MB" in answer["message"]


def test_an_announced_size_is_believed_before_a_byte_has_come(port: int):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"POST /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999999\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_is_counted_while_it_streams(port: int):
    parts = itertools.chain(itertools.repeat(bytes(10_000), 300))
    status, _, answer = ask(port, body=parts, Transfer_Encoding="chunked")
    assert (status, answer["error"]) == (413, "too_large")


def test_an_endless_body_is_answered_and_cut(port: int):
    head = b"POST /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n" % 65536 + bytes(65536) + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head)
        with pytest.raises(OSError):
            while sent < 2**31:
                sent += connection.send(chunk)
    assert sent < 2**31


ENDLESS = {
    "unknown address": b"POST /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "another site": b"POST /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\n",
    "wrong host": b"POST /api/detect HTTP/1.1\r\nHost: evil.example\r\n",
    "too large": b"POST /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "wrong method": b"PUT /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "the page": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "the head of the page": b"HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
}


def until_cut(port: int, head: bytes, chunk: bytes, most: int) -> int:
    """Send a body that does not end; returns after how many bytes the server closed the connection."""
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        with suppress(OSError):
            while sent < most:
                sent += connection.send(b"%x\r\n" % len(chunk) + chunk + b"\r\n")
    return sent


@pytest.mark.parametrize("head", ENDLESS.values(), ids=ENDLESS)
def test_of_a_refused_body_no_more_than_the_limit_is_read(port: int, head: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(refusal, "DRAIN_SECONDS", 30.0)
    monkeypatch.setattr(refusal, "DRAIN_BYTES", 1_000_000)
    assert until_cut(port, head, bytes(65536), most=2**28) < 2**26  # the system's buffers hold a few million bytes


@pytest.mark.parametrize("head", ENDLESS.values(), ids=ENDLESS)
def test_a_refused_body_is_not_read_for_longer_than_the_limit(port: int, head: bytes):
    with socket.create_connection(("127.0.0.1", port), timeout=0.02) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(500):  # a few bytes at a time, which no limit of bytes would end
            try:
                connection.sendall(b"3\r\nabc\r\n")
                if not connection.recv(65536):
                    return
            except TimeoutError:
                continue
            except OSError:
                return
    pytest.fail("the server still reads")


def test_a_body_that_pauses_is_refused(port: int):
    head = b"POST /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc"
    answer = hello(port, head)[1]
    assert b" 408 " in answer and b"too slowly" in answer


def test_a_body_that_trickles_is_refused(port: int):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"POST /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n")
        connection.settimeout(0.05)
        answer = b""
        for _ in range(600):  # each pause is short enough, all together are not
            try:
                connection.sendall(b"a")
                answer += connection.recv(65536)
            except TimeoutError:
                continue
            if b"\r\n\r\n" in answer:
                break
        assert b" 408 " in answer


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
def test_headers_that_do_not_come_close_the_connection(port: int, sent: bytes):
    assert hello(port, sent)[1] == b""


def test_slow_headers_after_a_first_request_close_the_connection_too(port: int):
    with socket.create_connection(("127.0.0.1", port), timeout=KEPT - 1) as connection:
        connection.sendall(b"GET /api/model HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET / HT")
        while connection.recv(65536):
            pass


@pytest.mark.parametrize("text", [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000, b"\0" * 100])
def test_what_is_not_http_is_refused(port: int, text: bytes):
    assert b" 400 " in hello(port, text + b"\r\n\r\n")[1]


def test_an_empty_body_is_refused(port: int):
    status, _, answer = ask(port, body=b"")
    assert (status, answer["error"]) == (400, "empty")


def test_bodies_together_have_a_limit():
    with serving(Pretender(), max_bytes=1_000_000, pause=20) as port:
        head = b"POST /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n"
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(IN_MEMORY)]
        for connection in held:  # almost whole pictures, which then pause
            connection.sendall(head + bytes(999_999))
        for _ in range(200):
            status, _, answer = ask(port, body=bytes(200))
            if status == 503:
                break
            time.sleep(0.02)
        assert (status, answer["error"]) == (503, "busy")
        for connection in held:
            connection.close()
        for _ in range(200):
            if ask(port, body=bytes(200))[0] == 200:
                break
            time.sleep(0.02)
        assert ask(port, body=bytes(999_999))[0] == 200


async def _many(port: int, count: int, body: bytes, release) -> Counter[int]:
    """The statuses of `count` requests at once; `release` is called when all but those that are kept are answered."""
    head = b"POST /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    answered = 0

    async def one() -> int:
        nonlocal answered
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + body)
        status = int((await reader.readline()).split()[1])
        await reader.read()
        writer.close()
        answered += 1
        if answered == count - 5:
            release()
        return status

    return Counter(await asyncio.gather(*(one() for _ in range(count))))


def test_of_500_at_once_one_is_looked_at_four_wait_and_the_others_are_told():
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1500:
        pytest.skip(f"1,000 sockets need more than {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1500), hard))
    try:
        detector = Pretender(released=False)
        with serving(detector, queue=4) as port:
            statuses = run_apart(_many(port, 500, scene(), detector.gate.set))
            assert statuses == {200: 5, 503: 495}
            assert (detector.asked, detector.most) == (5, 1)
            status, headers, _ = ask(port, body=scene())
            assert status == 200 and "retry-after" not in headers
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_has_left_the_queue_is_not_looked_at():
    detector = Pretender(released=False)
    with serving(detector) as port:
        head = b"POST /api/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n\r\nabc"
        first = socket.create_connection(("127.0.0.1", port))
        first.sendall(head)
        while not detector.asked:
            time.sleep(0.005)
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as gone:
                gone.sendall(head)
                time.sleep(0.05)
        detector.gate.set()
        assert b" 200 " in first.recv(65536)
        first.close()
        assert ask(port, body=b"abc")[0] == 200
        assert detector.asked == 2


def test_an_error_of_ours_does_not_end_the_server(capsys: pytest.CaptureFixture[str]):
    class Broken(Pretender):
        def detect(self, content: bytes):
            raise KeyError("a \x1b[31m bug")

    with serving(Broken()) as port:
        for _ in range(2):
            status, headers, answer = ask(port, body=scene())
            assert (status, answer["error"]) == (500, "failed") and "bug" not in json.dumps(answer)
            assert "content-security-policy" in headers
    shown = capsys.readouterr().err
    assert "KeyError" in shown and "\x1b" not in shown


def test_nothing_is_stored(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert ask(port, body=scene())[0] == 200
    assert ask(port, "/api/attention", scene())[0] == 200
    assert ask(port, body=encoded(Image.effect_noise((200, 200), 80), "JPEG"))[0] == 200
    assert list(tmp_path.iterdir()) == []
