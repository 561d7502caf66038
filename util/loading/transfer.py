"""One GET over http(s), whose server can neither keep us waiting nor lead us elsewhere."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

from util.text import printable

LEAST_BYTES = 16 * 1024  # fewer within the time of silence count as silence
MAX_REDIRECTS = 5
_CHUNK = 2**20


class Refused(Exception):
    """A download that failed or broke a limit; the message is a clause that gives the cause."""


@dataclass(frozen=True)
class Head:
    """What a server says before the content: size, version and type; None where it does not say."""

    size: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    kind: str | None = None


def is_address(source: str) -> bool:
    """True for an http(s) address, False for a path."""
    return source.lower().startswith(("http://", "https://"))


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not is_address(newurl):
            raise Refused(f"it redirects to {printable(newurl)}, which is no http(s) address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def transfer(url: str, silence: float) -> Iterator[Any]:
    """The `Head` of the answer, then the content in pieces, of which the last is empty.

    Another thread talks to the server, because a slow name server or a head that arrives letter by letter passes every
    timeout of a socket. Close the iterator to end it early.

    Args:
        url: an http(s) address.
        silence: seconds that the server may send almost nothing.

    Raises:
        Refused: no answer, another status than 200, a redirection elsewhere, a lost connection, or silence.
    """
    pieces: queue.Queue = queue.Queue(maxsize=4)
    stop = threading.Event()

    def put(piece: Any) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                return pieces.put(piece, timeout=0.2)

    def work() -> None:
        try:
            safe = quote(url, safe="%/:=&?~#+!$,;'@()*[]")  # letters beyond ASCII; what is quoted already stays
            request = urllib.request.Request(safe, headers={"User-Agent": "detr", "Accept-Encoding": "identity"})
            opener = urllib.request.build_opener(_HttpOnly())
            with opener.open(request, timeout=2 * silence) as answer:  # ends this thread; the reader has left
                if answer.status != 200:
                    raise Refused(f"the server answers with status {answer.status}")
                kind = answer.headers.get_content_type() if answer.headers["Content-Type"] else None
                put(Head(answer.length, answer.headers["ETag"], answer.headers["Last-Modified"], kind))
                while not stop.is_set():
                    piece = answer.read1(_CHUNK)
                    put(piece)
                    if not piece:
                        return
        except Exception as error:  # raised again by the reader; a server can cause almost any type
            if isinstance(error, HTTPError):
                error.close()
            put(error)

    threading.Thread(target=work, name="download", daemon=True).start()
    try:
        marked, since = time.monotonic(), 0
        while True:
            try:
                piece = pieces.get(timeout=max(marked + silence - time.monotonic(), 0))
            except queue.Empty:
                raise Refused(
                    f"the server sent almost nothing for {silence:g} s; DETR_DOWNLOAD_SECONDS sets a longer wait"
                ) from None
            if isinstance(piece, Refused):
                raise piece
            if isinstance(piece, Exception):
                raise Refused(printable(str(piece) or type(piece).__name__, 300)) from piece
            yield piece
            if not piece:
                return
            since += LEAST_BYTES if isinstance(piece, Head) else len(piece)
            if since >= LEAST_BYTES:
                marked, since = time.monotonic(), 0
    finally:
        stop.set()
