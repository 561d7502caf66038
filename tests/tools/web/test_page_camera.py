"""The camera in a real browser, which shows a drawing: one picture, or one after the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the page needs the extra web")
pytest.importorskip("uvicorn", reason="the page needs the extra web")

from tests.tools.web.browser import SHAPES, Visit
from tests.tools.web.serving import Pretender, serving


def wait_for(seen: Visit, happened: Callable[[], Any]) -> None:
    for _ in range(1500):
        if happened():
            return
        seen.page.wait_for_timeout(20)
    pytest.fail("it never happened")


def test_the_camera_takes_a_picture_and_is_switched_off(visit: Callable[..., Visit]):
    seen = visit(permissions=["camera"])
    seen.page.click("#camera")
    seen.until("document.getElementById('video').videoWidth > 0")
    seen.page.click("#take")
    seen.page.wait_for_selector("#canvas:not([hidden])")
    coco = json.loads(seen.page.input_value("#json"))
    assert coco["images"][0]["file_name"] == "camera.jpg" and coco["images"][0]["width"] > 96
    assert seen.page.evaluate("document.getElementById('video').srcObject") is None
    assert seen.asked("/api/detect") == 1


def test_live_pictures_follow_each_other_until_they_are_stopped(browser: Any):
    detector = Pretender(released=False)
    with serving(detector, queue=0) as port:  # a second picture at once would be refused
        seen = Visit(browser, port, permissions=["camera"]).open()
        seen.page.click("#camera")
        seen.until("document.getElementById('video').videoWidth > 0")
        seen.page.click("#watch")
        wait_for(seen, lambda: detector.asked)
        seen.page.wait_for_timeout(100)
        assert seen.asked("/api/detect") == 1  # nothing more before the answer
        detector.gate.set()
        wait_for(seen, lambda: detector.asked >= 4)
        assert detector.most == 1 and seen.text("#say").startswith("Live:")
        assert seen.page.evaluate("document.activeElement.id") == "stop"
        seen.page.keyboard.press("Enter")
        assert seen.text("#say") == "1 object shown." and seen.page.locator("#stop").is_hidden()
        assert seen.page.evaluate("document.activeElement.id") == "camera"
        assert seen.page.evaluate("document.getElementById('video').srcObject") is None
        asked = seen.asked("/api/detect")
        seen.page.wait_for_timeout(150)
        assert seen.asked("/api/detect") == asked
        assert seen.complaints == []
        seen.context.close()


@pytest.mark.parametrize("end", ["hidden", "another picture", "the server stops"])
def test_live_pictures_end(browser: Any, end: str):
    with serving(Pretender()) as port:
        seen = Visit(browser, port, permissions=["camera"]).open()
        seen.page.click("#camera")
        seen.until("document.getElementById('video').videoWidth > 0")
        seen.page.click("#watch")
        wait_for(seen, lambda: seen.asked("/api/detect") > 1)
        if end == "hidden":
            seen.page.evaluate(
                "Object.defineProperty(document, 'hidden', { value: true }),"
                "document.dispatchEvent(new Event('visibilitychange'))"
            )
            seen.says("1 object shown.")
        elif end == "another picture":
            seen.choose(SHAPES)
            seen.until("document.getElementById('json').value.includes('scene.png')")
    if end == "the server stops":
        seen.says("The server does not answer")
    assert seen.page.locator("#stop").is_hidden()
    assert seen.page.evaluate("document.getElementById('video').srcObject") is None
    seen.context.close()
