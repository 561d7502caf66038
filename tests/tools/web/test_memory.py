"""Memory that many pictures took goes back to the system when nobody asks."""

from __future__ import annotations

import asyncio
import time

import pytest

pytest.importorskip("starlette", reason="the page needs the extra web")
pytest.importorskip("uvicorn", reason="the page needs the extra web")

from tests.tools.web.serving import Pretender, ask, run_apart, serving
from tools.web import memory


def test_it_is_given_back_once_after_the_last_request(monkeypatch: pytest.MonkeyPatch):
    given: list[int] = []
    monkeypatch.setattr(memory, "return_freed_memory", lambda: given.append(1))
    monkeypatch.setattr(memory, "PAUSE", 0.05)

    async def requests() -> list[int]:
        leftovers = memory.Leftovers()
        for _ in range(5):
            leftovers.give_back_soon()
            await asyncio.sleep(0)
        at_once = len(given)
        await asyncio.sleep(0.2)
        return [at_once, len(given)]

    assert run_apart(requests()) == [0, 1]


@pytest.mark.parametrize("body", [b"abc", b""], ids=["answered", "refused"])
def test_every_request_is_followed_by_it(body: bytes, monkeypatch: pytest.MonkeyPatch):
    given: list[int] = []
    monkeypatch.setattr(memory, "return_freed_memory", lambda: given.append(1))
    monkeypatch.setattr(memory, "PAUSE", 0.01)
    with serving(Pretender()) as port:
        assert ask(port, body=body)[0] == (200 if body else 400)
        for _ in range(500):
            if given:
                return
            time.sleep(0.01)
    pytest.fail("it was not given back")
