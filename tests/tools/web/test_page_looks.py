"""How the page looks in a real browser: contrast, narrow windows, many objects, long names, unwanted motion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the page needs the extra web")
pytest.importorskip("uvicorn", reason="the page needs the extra web")

from tests.tools.web.browser import SHAPES, Visit
from tests.tools.web.serving import Pretender, encoded, serving
from util.pictures.boxes import color_of

CONTRASTS = """() => {
    const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const over = (colors) => {
        pixel.clearRect(0, 0, 1, 1);
        for (const color of colors) { pixel.fillStyle = color; pixel.fillRect(0, 0, 1, 1); }
        return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255);
    };
    const linear = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const light = (color) => {
        const [red, green, blue] = color.map(linear);
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    return [...document.querySelectorAll("body *")].flatMap((element) => {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.checkVisibility({ checkOpacity: true, visibilityProperty: true })) return [];
        const grounds = [];
        let opacity = 1;
        for (let one = element; one; one = one.parentElement) {
            grounds.unshift(getComputedStyle(one).backgroundColor);
            opacity *= Number(getComputedStyle(one).opacity);
        }
        const [ground, ink] = [over(grounds), over([...grounds, getComputedStyle(element).color])].map(light);
        const ratio = (Math.max(ground, ink) + 0.05) / (Math.min(ground, ink) + 0.05);
        return [[opacity < 1 ? 0 : ratio, element.tagName, element.textContent.trim().slice(0, 30)]];
    });
}"""
SPY = """{
    window.tags = [];
    const pen = CanvasRenderingContext2D.prototype, { fillRect, fillText, drawImage } = pen;
    let last = null;
    pen.drawImage = function (...given) {
        window.tags = [];
        drawImage.apply(this, given);
    };
    pen.fillRect = function (...place) {
        last = [place, this.fillStyle];
        fillRect.apply(this, place);
    };
    pen.fillText = function (text, ...place) {
        window.tags.push({ text, rect: last[0], ground: last[1], ink: this.fillStyle });
        fillText.call(this, text, ...place);
    };
}"""


class Crowd(Pretender):
    """Finds many objects, all over the picture and partly at the same places, of classes with these names."""

    def __init__(self, names: list[str], count: int) -> None:
        super().__init__()
        self.names, self.count, self.size = names, count, (96, 96)

    def about(self) -> dict[str, Any]:
        colors = ["#{:02x}{:02x}{:02x}".format(*color_of(number)) for number in range(len(self.names))]
        categories = [
            {"id": number, "name": name, "label": name, "color": color, "predicted": True}
            for number, (name, color) in enumerate(zip(self.names, colors))
        ]
        return super().about() | {"categories": categories}

    def detect(self, content: bytes) -> dict[str, Any]:
        objects = [
            {
                "category_id": number % len(self.names),
                "bbox": [37 * number % 80, 23 * number % 70, 12 + number % 9, 10 + number % 7],
                "area": 100,
                "score": 0.99 - number / 300,
                "query": number,
            }
            for number in range(self.count)
        ]
        width, height = self.size
        return {"width": width, "height": height, "turn": 1, "objects": objects, "milliseconds": {"model": 1.0}}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_a_contrast_of_at_least_4_5(open_page: Callable[..., Visit], scheme: str):
    seen = open_page(color_scheme=scheme)
    seen.choose(SHAPES)
    seen.page.click("summary")
    seen.page.get_by_role("checkbox", name="Show square").uncheck()
    texts = seen.page.evaluate(CONTRASTS)
    assert len(texts) > 30
    seen.choose(b"no picture", wait=False)  # an error, and classes that were not found
    seen.says("The file is no picture")
    texts += seen.page.evaluate(CONTRASTS)
    assert [one for one in texts if one[0] < 4.5] == []


def test_names_on_the_picture_have_room_and_can_be_read(browser: Any):
    names = [
        "cat",
        "القطة التي اسمها طويل جدا جدا جدا",
        "一个名字非常非常非常非常非常非常非常非常非常长的类别",
        "x" * 60,
    ]
    with serving(Crowd(names, 100)) as port:
        seen = Visit(browser, port)
        seen.page.add_init_script(SPY)
        seen.open().choose(SHAPES)
        tags = seen.page.evaluate("window.tags")
        seen.context.close()
    assert 20 < len(tags) < 100 and seen.complaints == []
    assert tags[0]["text"] == "\u2068cat\u2069 99%"  # the best object is named
    assert max(len(tag["text"]) for tag in tags) <= 28 + len("\u2068\u2069 99%")
    for number, (x, y, wide, tall) in enumerate(tag["rect"] for tag in tags):
        for left, top, width, height in (tag["rect"] for tag in tags[:number]):
            assert x + wide <= left or left + width <= x or y + tall <= top or top + height <= y
    grounds = {tag["ground"]: tag["ink"] for tag in tags}
    assert len(grounds) == 4
    for ground, ink in grounds.items():
        assert _contrast(ground, ink) >= 4.5


def _contrast(one: str, other: str) -> float:
    parts = [[int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)] for color in (one, other)]
    parts = [
        [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color] for color in parts
    ]
    dark, light = sorted(0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in parts)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("width", [320, 640])  # a window of 1280 pixels at 400 % and 200 %
def test_narrow_windows_show_all_without_scrolling_sideways(browser: Any, width: int):
    detector = Crowd(["A class with a name that goes on and on", "Donaudampfschifffahrtsgesellschaft" * 2], 5)
    outside = """[...document.querySelectorAll("body *")].filter((element) => {
        const { left, right, width } = element.getBoundingClientRect();
        return width && (left < -1 || right > innerWidth + 1);
    }).map((element) => element.outerHTML.slice(0, 80))"""
    with serving(detector) as port:
        seen = Visit(browser, port, viewport={"width": width, "height": 430}).open()
        for detector.size in ((3, 2), (2400, 40), (40, 2400)):
            seen.choose(encoded(Image.new("RGB", detector.size)), f"{detector.size} {'long name ' * 10}.png")
            seen.until(f"document.getElementById('json').value.includes('{detector.size}')")
            assert seen.page.evaluate(outside) == []
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        seen.context.close()


@pytest.mark.parametrize(("motion", "name"), [("reduce", "none"), ("no-preference", "turn")])
def test_nothing_moves_where_motion_is_unwanted(browser: Any, motion: str, name: str):
    detector = Pretender(released=False)
    with serving(detector) as port:
        seen = Visit(browser, port, reduced_motion=motion).open()
        seen.choose(SHAPES, wait=False)
        seen.page.wait_for_selector("body.busy")
        script = "getComputedStyle(document.getElementById('say'), '::before').animationName"
        assert seen.page.evaluate(script) == name
        detector.gate.set()
        seen.page.wait_for_selector("#canvas:not([hidden])")
        seen.context.close()
