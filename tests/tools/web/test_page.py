"""The page in a real browser, with the shipped panoptic model, which draws masks."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

pytest.importorskip("starlette", reason="the page needs the extra web")
pytest.importorskip("uvicorn", reason="the page needs the extra web")

from prediction.predictor import Predictor
from prediction.result import Prediction
from tests.tools.web.browser import SHAPES, Visit, near
from tests.tools.web.serving import Pretender, encoded, serving
from util.pictures.boxes import color_of


@pytest.fixture(scope="module")
def found(predictor: Predictor) -> Prediction:
    prediction = predictor(Image.open(io.BytesIO(SHAPES)))
    assert sorted(prediction.names) == ["circle", "square"]
    return prediction


def test_boxes_masks_and_names_are_drawn(visit: Callable[..., Visit], found: Prediction):
    seen = visit()
    seen.choose(SHAPES)
    assert seen.text("#say") == "2 objects shown."
    assert [row.split()[0] for row in seen.page.locator("#objects button").all_inner_texts()] == found.names
    picture = Image.open(io.BytesIO(SHAPES)).convert("RGB")
    for (x0, _, x1, y1), label, mask in zip(found.boxes.tolist(), found.labels.tolist(), found.masks.numpy()):
        assert near(seen.pixel((x0 + x1) / 2, y1), color_of(label), 60)  # the lower edge of the box
        rows, columns = np.nonzero(mask)
        x, y = columns.mean() + 0.5, rows.mean() + 0.5
        plain = np.array(picture.getpixel((int(x), int(y))))
        assert near(seen.pixel(x, y), tuple(plain * 0.55 + np.array(color_of(label)) * 0.45), 16)
    assert near(seen.pixel(90, 5), picture.getpixel((90, 5)), 16)  # outside of every mask


def test_score_and_classes_change_the_picture_without_a_request(visit: Callable[..., Visit], found: Prediction):
    seen = visit()
    seen.choose(SHAPES)
    before = len(seen.requests)
    square = found.names.index("square")
    x0, _, x1, y1 = found.boxes[square].tolist()
    edge = seen.pixel((x0 + x1) / 2, y1)
    seen.page.get_by_role("checkbox", name="square").uncheck()
    assert seen.page.locator("#objects button").count() == 1
    assert not near(seen.pixel((x0 + x1) / 2, y1), tuple(edge), 30)
    assert seen.text("#say") == "1 object shown; 1 more below the score or of other classes."
    seen.page.click("#all")
    seen.page.fill("#score", "1")
    assert seen.page.locator("#objects button").count() == 0
    seen.page.fill("#score", str(seen.page.get_attribute("#score", "min")))
    assert seen.page.locator("#objects button").count() >= 2
    assert near(seen.pixel((x0 + x1) / 2, y1), tuple(edge), 30)
    seen.page.click("#none")
    assert seen.page.locator("#objects button").count() == 0
    assert len(seen.requests) == before


def test_the_json_is_cocos_and_can_be_copied(visit: Callable[..., Visit], found: Prediction, predictor: Predictor):
    seen = visit(permissions=["clipboard-read", "clipboard-write"])
    seen.choose(SHAPES, "my 猫.png")
    seen.page.click("summary")
    seen.page.click("#copy")
    seen.says("The JSON is copied.")
    coco = json.loads(seen.page.evaluate("navigator.clipboard.readText()"))
    assert coco["images"] == [{"id": 1, "file_name": "my 猫.png", "width": 96, "height": 96}]
    assert coco["categories"] == predictor.categories
    own = [{"id": index, "image_id": 1, "iscrowd": 0} for index in range(1, len(found) + 1)]
    assert coco["annotations"] == [one | result for one, result in zip(own, found.results())]
    for annotation, mask in zip(coco["annotations"], found.masks.numpy()):
        assert (coco_mask.decode(annotation["segmentation"]) == mask).all()
    seen.page.get_by_role("checkbox", name="square").uncheck()
    shown = json.loads(seen.page.input_value("#json"))["annotations"]
    assert [one["category_id"] for one in shown] == [1]


def test_a_clicked_object_shows_where_the_model_looked(visit: Callable[..., Visit], found: Prediction):
    seen = visit()
    seen.choose(SHAPES)
    corner, (x0, y0, x1, y1) = seen.pixel(90, 5), found.boxes[0].tolist()
    seen.click_picture((x0 + x1) / 2, (y0 + y1) / 2)
    seen.says("Bright")
    assert seen.page.get_attribute("#objects button >> nth=0", "aria-pressed") == "true"
    assert sum(seen.pixel(90, 5)) < 0.7 * sum(corner)  # dark where it did not look
    brightest = max(sum(seen.pixel(x, y)) for x in range(4, 96, 8) for y in range(4, 96, 8))
    assert brightest > 400
    seen.page.click("#objects button >> nth=1")
    seen.page.wait_for_selector("#objects button[aria-pressed=true] >> text=" + found.names[1])
    assert seen.asked("/api/attention") == 1  # one answer for all objects of a picture
    seen.page.keyboard.press("Escape")
    assert seen.page.locator("[aria-pressed=true]").count() == 0
    assert near(seen.pixel(90, 5), tuple(corner))


def test_times_of_each_step_are_shown(visit: Callable[..., Visit]):
    seen = visit()
    seen.choose(SHAPES)
    names = seen.page.locator("#times dt").all_inner_texts()
    times = [float(text.removesuffix(" ms")) for text in seen.page.locator("#times dd").all_inner_texts()]
    assert names == ["sending", "waiting", "decoding", "the model", "results", "in all"]
    assert all(time >= 0 for time in times) and times[3] > 0 and sum(times[:-1]) <= times[-1] + 3


def test_a_picture_is_dropped_or_pasted_and_an_address_is_not(visit: Callable[..., Visit]):
    seen = visit()
    for number, kind in enumerate(("drop", "paste"), start=1):
        seen.give(kind, SHAPES)
        seen.says("2 objects shown.")
        seen.give(kind, None, "http://127.0.0.1/picture.png")
        assert seen.text("#say").startswith("Only picture files are taken")
        assert seen.asked("/api/detect") == number
    assert [url for url in seen.requests if "picture.png" in url] == []


def test_everything_works_by_keyboard(visit: Callable[..., Visit], found: Prediction):
    seen = visit()
    keyboard = seen.page.keyboard

    def tab_to(selector: str) -> None:
        for _ in range(40):
            keyboard.press("Tab")
            if seen.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                outline = seen.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"{selector} does not show that it has the focus"
                return
        pytest.fail(f"Tab does not reach {selector}")

    choosers: list[Any] = []
    seen.page.on("filechooser", lambda chooser: choosers.append(chooser))
    tab_to("#choose")
    keyboard.press("Enter")
    for _ in range(500):
        if choosers:
            break
        seen.page.wait_for_timeout(20)
    choosers[0].set_files({"name": "a.png", "mimeType": "image/png", "buffer": SHAPES})
    seen.page.wait_for_selector("#canvas:not([hidden])")
    tab_to("#score")
    keyboard.press("End")
    assert seen.text("#score-value") == "100%" and seen.page.locator("#objects button").count() == 0
    keyboard.press("Home")
    tab_to("#classes input")
    keyboard.press("Space")
    assert seen.page.locator("#classes input >> nth=0").is_checked() is False
    assert seen.page.evaluate("document.activeElement.matches('#classes input')")  # the focus stays
    keyboard.press("Space")
    tab_to("#objects button")
    keyboard.press("Enter")
    seen.page.wait_for_selector("#objects button[aria-pressed=true]")
    assert seen.page.evaluate("document.activeElement.matches('[aria-pressed=true]')")
    keyboard.press("Escape")
    tab_to("summary")
    keyboard.press("Enter")
    tab_to("#copy")
    tab_to("#canvas")
    keyboard.press("ArrowRight")
    keyboard.press("ArrowRight")
    seen.until("document.querySelectorAll('#objects button')[1].ariaPressed === 'true'")


def test_a_phone_in_the_dark_has_large_buttons_and_nothing_beside_the_screen(visit: Callable[..., Visit]):
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "color_scheme": "dark"}
    seen = visit(**phone, device_scale_factor=2)
    seen.choose(SHAPES)
    assert seen.page.evaluate("document.documentElement.scrollWidth") == 360
    for selector in ("#choose", "#camera", "#language", "#objects button >> nth=0"):
        assert seen.page.locator(selector).bounding_box()["height"] >= 40
    place = seen.page.locator("#canvas").bounding_box()
    assert place["x"] >= 0 and 280 < place["width"] <= 360
    assert seen.page.evaluate("document.getElementById('canvas').width") == round(2 * place["width"])
    ink, page = (seen.page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    assert min(_channels(ink)) > 200 and max(_channels(page)) < 40
    seen.page.locator("#objects button >> nth=0").tap()
    seen.page.wait_for_selector("[aria-pressed=true]")


def _channels(color: str) -> list[int]:
    return [int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")]


def test_the_page_speaks_chinese_and_english(visit: Callable[..., Visit]):
    seen = visit(locale="zh-CN")
    seen.choose(SHAPES)
    assert seen.text("#say") == "显示 2 个目标。" and seen.page.get_attribute("html", "lang") == "zh-CN"
    chinese = seen.text("body")
    seen.page.click("#language")
    assert seen.text("#say") == "2 objects shown." and seen.page.get_attribute("html", "lang") == "en"
    english = seen.text("body")
    assert not any("\u4e00" <= letter <= "\u9fff" for letter in english.replace("中文", ""))
    assert "undefined" not in chinese + english
    words = seen.page.evaluate("import('/words.js').then(({ WORDS }) => [WORDS.en, WORDS.zh].map(Object.keys))")
    assert sorted(words[0]) == sorted(words[1])
    assert visit("#zh").text("#choose") == "选择图片"


def test_a_refused_file_is_said_and_the_next_one_is_looked_at(visit: Callable[..., Visit]):
    seen = visit()
    refused = {
        "The file is no picture that can be read": b"/etc/passwd",
        "The picture is damaged": SHAPES[:300],
        "The picture has too many pixels": encoded(Image.new("L", (1001, 1000))),
        "The file is larger than the limit of 0.5 MB": bytes(500_001),
    }
    for sentence, content in refused.items():
        seen.choose(content, wait=False)
        seen.says(sentence)
        assert seen.page.locator("#say.wrong").count() == 1 and seen.page.locator("#canvas").is_hidden()
    assert seen.asked("/api/detect") == 3  # the last one was not even sent
    seen.choose(SHAPES)
    assert seen.text("#say") == "2 objects shown."


def test_browser_and_detector_turn_pictures_alike(visit: Callable[..., Visit]):
    seen = visit()
    seen.page.click("#none")
    image = Image.new("RGB", (80, 40), "white")
    image.paste("red", (0, 0, 20, 20))
    red = {1: (5, 5), 2: (75, 5), 3: (75, 35), 4: (5, 35), 5: (5, 5), 6: (35, 5), 7: (35, 75), 8: (5, 75)}
    kinds = [("JPEG", 3), ("JPEG", 6), ("PNG", 6), *(("WEBP", tag) for tag in red)]
    for kind, tag in kinds:
        exif = Image.Exif()
        exif[0x0112] = tag
        name = f"{kind}{tag}.png"
        seen.choose(encoded(image, kind, exif=exif.tobytes()), name)
        seen.until(f"document.getElementById('json').value.includes('{name}')")
        width, height = (80, 40) if tag < 5 else (40, 80)
        found = json.loads(seen.page.input_value("#json"))["images"][0]
        assert (found["width"], found["height"]) == (width, height)
        x, y = red[tag]
        assert near(seen.pixel(x / width, y / height, of=1), (255, 0, 0), 20), name
        assert near(seen.pixel(1 - x / width, 1 - y / height, of=1), (255, 255, 255), 20), name


def test_a_name_is_text_whatever_it_holds(browser: Any):
    name = '<img src=x onerror="document.title=1"><script>document.title = 2</script>'
    with serving(Pretender(name)) as port:
        seen = Visit(browser, port).open()
        seen.choose(SHAPES, f"{name}.png".replace("/", ""))
        assert name in seen.text("#objects") and name in seen.text("#classes")
        assert seen.page.locator("aside img, main script").count() == 0
        assert seen.page.title() == "DETR: what is in the picture"
        assert seen.text("#hint").endswith("to see it alone.")  # this model does not tell where it looks
        seen.page.click("#objects button")
        assert seen.asked("/api/attention") == 0
        seen.context.close()


def test_a_busy_or_stopped_server_is_said(browser: Any):
    detector = Pretender(released=False)
    with serving(detector, queue=0) as port:
        first, second = Visit(browser, port).open(), Visit(browser, port).open()
        first.choose(SHAPES, wait=False)
        first.page.wait_for_timeout(1)
        for _ in range(500):
            if detector.asked:
                break
            first.page.wait_for_timeout(10)
        second.choose(SHAPES, wait=False)
        second.page.wait_for_selector("#say.wrong")
        assert second.text("#say") == "The detector is busy: try again in a moment."
        detector.gate.set()
        first.page.wait_for_selector("#canvas:not([hidden])")
    second.choose(SHAPES, wait=False)
    second.says("The server does not answer")
    first.context.close()
    second.context.close()
