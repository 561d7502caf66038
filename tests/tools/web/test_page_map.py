"""The panoptic map in a real browser: its segments in the picture, the legend, the JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

pytest.importorskip("starlette", reason="the page needs the extra web")
pytest.importorskip("uvicorn", reason="the page needs the extra web")

from prediction.panoptic_map import PanopticMap
from prediction.predictor import Predictor
from prediction.result import Prediction
from tests.helpers.predict_parts import write_panoptic, write_picture
from tests.tools.web.browser import SHAPES, Visit, near
from tests.tools.web.serving import serving
from tools.web.looking import Detector
from util.pictures.masks import OPACITY, panoptic_colors


@pytest.fixture(scope="module")
def found(predictor: Predictor) -> Prediction:
    prediction = predictor(Image.open(io.BytesIO(SHAPES)))
    kinds = sorted((segment["isthing"], segment["name"]) for segment in prediction.panoptic.segments)
    assert kinds == [(False, "clouds"), (False, "stripes"), (True, "circle"), (True, "square")]
    return prediction


def inside(panoptic: PanopticMap, number: int) -> tuple[float, float]:
    """The lowest point of a segment that is not near its edges; names are written where it is widest."""
    from scipy.ndimage import binary_erosion

    rows, columns = binary_erosion(panoptic.ids == number, iterations=3).nonzero()
    lowest = rows.argmax()
    return columns[lowest] + 0.5, rows[lowest] + 0.5


def points(panoptic: PanopticMap) -> dict[str, tuple[float, float]]:
    return {segment["name"]: inside(panoptic, segment["id"]) for segment in panoptic.segments}


def grey(x: float, y: float) -> np.ndarray:
    """The picture without colour, as the page shows it where no segment is."""
    pixel = Image.open(io.BytesIO(SHAPES)).convert("RGB").getpixel((int(x), int(y)))
    return np.full(3, np.dot(pixel, (0.3, 0.59, 0.11)))


def rows(seen: Visit) -> list[list[str]]:
    return [row.split("\n") for row in seen.page.locator("#objects button").all_inner_texts()]


def test_things_and_stuff_are_drawn_in_the_colours_of_the_legend(open_page: Callable[..., Visit], found: Prediction):
    seen = open_page()
    seen.choose(SHAPES)
    assert seen.text("#say") == "4 segments shown." and seen.text("#items") == "Segments 4"
    places, segments = points(found.panoptic), found.panoptic.segments
    for segment, color in zip(segments, panoptic_colors(segments)):
        x, y = places[segment["name"]]
        share = OPACITY[segment["isthing"]]
        assert near(seen.pixel(x, y), tuple(grey(x, y) * (1 - share) + np.array(color) * share), 20), segment
        dot = seen.page.locator("#objects li", has_text=segment["name"]).locator(".dot")
        assert dot.evaluate("dot => dot.style.background") == f"rgb{color}"
    stuff = {one["name"]: f"stuff, covers {one['area'] / 9216:.0%}" for one in segments if not one["isthing"]}
    assert [row[0] for row in rows(seen)][:2] == found.names  # things first, by score
    assert {row[0]: row[1] for row in rows(seen)[2:]} == stuff


def test_segments_are_switched_off_and_on_without_a_request(open_page: Callable[..., Visit], found: Prediction):
    seen = open_page()
    seen.choose(SHAPES)
    before, places = len(seen.requests), points(found.panoptic)
    for name in ("clouds", "square"):
        colored = seen.pixel(*places[name])
        seen.page.get_by_role("checkbox", name=f"Show {name}").focus()
        seen.page.keyboard.press("Space")
        assert near(seen.pixel(*places[name]), tuple(grey(*places[name])), 12)
        assert seen.text("#say").startswith("3 segments shown; 1 more") and seen.text("#items") == "Segments 3 of 4"
        shown = json.loads(seen.page.input_value("#json"))["segments_info"]
        assert len(shown) == 3 and len(rows(seen)) == 4
        seen.page.keyboard.press("Space")  # the focus has stayed
        assert near(seen.pixel(*places[name]), tuple(colored), 2)
    assert len(seen.requests) == before


def test_score_and_classes_act_on_things_alone(open_page: Callable[..., Visit], found: Prediction):
    seen = open_page()
    seen.choose(SHAPES)
    seen.page.fill("#score", "1")
    assert {row[0] for row in rows(seen)} == {"clouds", "stripes"}
    x, y = points(found.panoptic)["square"]
    assert near(seen.pixel(x, y), tuple(grey(x, y)))
    seen.page.fill("#score", "0.5")
    seen.page.get_by_role("checkbox", name="square", exact=True).uncheck()
    assert {row[0] for row in rows(seen)} == {"clouds", "stripes", "circle"}
    assert near(seen.pixel(x, y), tuple(grey(x, y)))
    seen.page.click("#none")
    assert {row[0] for row in rows(seen)} == {"clouds", "stripes"}


def test_the_json_holds_the_segments(open_page: Callable[..., Visit], found: Prediction, predictor: Predictor):
    seen = open_page()
    seen.choose(SHAPES)
    coco = json.loads(seen.page.input_value("#json"))
    assert coco["categories"] == predictor.categories and len(coco["annotations"]) == len(found)
    info = {segment["id"]: segment for segment in found.panoptic.segments_info()}
    assert len(coco["segments_info"]) == len(info)
    drawn = np.zeros_like(found.panoptic.ids)
    for segment in coco["segments_info"]:
        assert info[segment["id"]].items() <= segment.items()
        drawn += segment["id"] * coco_mask.decode(segment["segmentation"])
    assert (drawn == found.panoptic.ids).all()


def test_a_clicked_segment_is_shown_alone_and_a_thing_with_its_attention(
    open_page: Callable[..., Visit], found: Prediction
):
    seen = open_page()
    seen.choose(SHAPES)
    places = points(found.panoptic)
    seen.click_picture(*places["clouds"])
    seen.says("This clouds alone.")
    assert seen.asked("/api/attention") == 0
    assert near(seen.pixel(*places["stripes"]), tuple(grey(*places["stripes"])), 12)
    assert seen.page.locator("[aria-pressed=true]").inner_text().startswith("clouds")
    seen.click_picture(*places["square"])
    seen.says("Bright")
    assert seen.page.locator("[aria-pressed=true]").inner_text().startswith("square")
    seen.page.keyboard.press("Escape")
    assert seen.text("#say") == "4 segments shown."
    seen.page.focus("#canvas")
    for name in [*found.names, None]:
        seen.page.keyboard.press("ArrowRight")
        seen.page.wait_for_selector(f"[aria-pressed=true] >> text={name}" if name else "[aria-pressed=true]")
    seen.says("This ")
    assert found.names[0] in seen.page.get_attribute("#canvas", "aria-label")


def test_the_view_changes_by_keyboard_without_a_request(open_page: Callable[..., Visit]):
    seen = open_page()
    seen.choose(SHAPES)
    before = len(seen.requests)
    seen.page.focus("#as-map")
    seen.page.keyboard.press("ArrowRight")
    assert seen.text("#say") == "2 objects shown." and seen.text("#items") == "Objects 2"
    assert seen.page.locator("#objects input").locator("visible=true").count() == 0
    seen.page.keyboard.press("ArrowLeft")
    assert seen.text("#say") == "4 segments shown." and len(seen.requests) == before


def test_an_early_checkpoint_says_why_its_map_is_empty(open_page: Callable[..., Visit], tmp_path: Path):
    predictor = Predictor(write_panoptic(tmp_path / "early.pth"), "cpu")
    picture = write_picture(tmp_path / "patches.png", (90, 60))
    sure = predictor(picture, panoptic_threshold=0).panoptic
    assert len(sure.segments) > 2
    with serving(Detector(predictor, 1_000_000, panoptic_threshold=1)) as port:
        seen = open_page(port=port)
        seen.choose(picture.read_bytes())
        assert seen.text("#empty").startswith("No mask scores above the map's 100%")
        assert seen.text("#say") == "0 segments shown."
    with serving(Detector(predictor, 1_000_000, panoptic_threshold=0)) as port:
        seen = open_page(port=port)
        seen.choose(picture.read_bytes())
        seen.page.fill("#score", "0")
        assert seen.text("#empty") == "" and len(rows(seen)) == len(sure.segments)
        things = [segment for segment in sure.segments if segment["isthing"]]
        assert 0 < len(things) == len([row for row in rows(seen) if row[1].startswith("thing")])
