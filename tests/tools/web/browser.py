"""A real browser, where this machine has one; nothing is installed for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.tools.web.serving import scene

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # a camera that shows a drawing
BACKGROUND = ("--disable-background-networking", "--disable-component-update", "--no-first-run")

SHAPES = scene(1)  # a square and a circle, on stripes and clouds


def near(one: list[int], other: tuple[int, ...], tolerance: int = 12) -> bool:
    return max(abs(a - b) for a, b in zip(one, other)) <= tolerance


@contextmanager
def chromium() -> Iterator[Any]:
    """Context with Debian's chromium under Playwright; skips the test where one of them is absent."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the browser's tests need playwright")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*FLAGS, *BACKGROUND])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """The page in a window of its own; its requests and complaints are kept.

    Args:
        browser: see `chromium`.
        port: of the server.
        options: of Playwright's `new_context`, such as the locale.
    """

    def __init__(self, browser: Any, port: int, **options: Any) -> None:
        options = {"locale": "en-US", "viewport": {"width": 1200, "height": 800}} | options
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(30_000)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._listen)
        self.address = f"http://127.0.0.1:{port}"

    def _listen(self, message: Any) -> None:
        if message.type == "error" and "the server responded with a status" not in message.text:  # it was refused
            self.complaints.append(message.text)

    def until(self, script: str) -> None:
        """Wait until an expression is true. Playwright's own waiting would evaluate text, which the page forbids."""
        for _ in range(1500):
            if self.page.evaluate(script):
                return
            self.page.wait_for_timeout(20)
        pytest.fail(f"never true: {script}")

    def says(self, beginning: str) -> None:
        """Wait until the status line begins like this."""
        self.until(f"document.getElementById('say').textContent.startsWith({json.dumps(beginning)})")

    def open(self, fragment: str = "") -> Visit:
        self.page.goto(f"{self.address}/{fragment}")
        self.page.wait_for_selector("body[data-ready]")
        return self

    def choose(self, content: bytes, name: str = "scene.png", wait: bool = True) -> None:
        """Give a file to the page and, usually, wait for what was found."""
        self.page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})
        if wait:
            self.page.wait_for_selector("#canvas:not([hidden])")

    def asked(self, path: str) -> int:
        """How often the page asked for `path`."""
        return self.requests.count(self.address + path)

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def pixel(self, x: float, y: float, of: int = 96) -> list[int]:
        """[red, green, blue] of the canvas where the picture of `of` pixels has the point x, y."""
        script = """([x, y]) => { const canvas = document.getElementById("canvas"), pen = canvas.getContext("2d");
            return [...pen.getImageData(x * canvas.width, y * canvas.height, 1, 1).data].slice(0, 3); }"""
        return self.page.evaluate(script, [x / of, y / of])

    def click_picture(self, x: float, y: float, of: int = 96) -> None:
        place = self.page.locator("#canvas").bounding_box()
        self.page.locator("#canvas").click(position={"x": place["width"] * x / of, "y": place["height"] * y / of})

    def give(self, kind: str, content: bytes | None, text: str = "") -> None:
        """Drop or paste a file, or text."""
        script = """([kind, bytes, text]) => {
            const data = new DataTransfer();
            if (bytes) data.items.add(new File([new Uint8Array(bytes)], "given.png", { type: "image/png" }));
            else data.setData("text/plain", text);
            const options = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(kind === "drop" ? new DragEvent("drop", { ...options, dataTransfer: data })
                : new ClipboardEvent("paste", { ...options, clipboardData: data })); }"""
        self.page.evaluate(script, [kind, None if content is None else list(content), text])
