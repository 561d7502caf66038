"""Bytes of a picture → the objects of `Predictor`, and where the model looked."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the page needs the extra web")
pytest.importorskip("uvicorn", reason="the page needs the extra web")

import hubconf
from models.attention_maps import record_attention
from prediction.predictor import Predictor
from tests.tools.web.serving import encoded, scene
from tools.web import looking
from tools.web.looking import Detector, decode
from tools.web.refusal import Refused


@pytest.fixture(scope="module")
def detector(predictor: Predictor) -> Detector:
    return Detector(predictor, 1_000_000)


def test_the_objects_are_those_of_the_predictor(detector: Detector):
    answer = detector.detect(scene(3))
    expected = detector.predictor(Image.open(io.BytesIO(scene(3))), threshold=looking.MIN_SCORE)
    assert len(expected) > 0
    plain = [{name: value for name, value in found.items() if name != "query"} for found in answer["objects"]]
    assert plain == expected.results()
    assert [found["query"] for found in answer["objects"]] == expected.queries.tolist()
    assert (answer["width"], answer["height"]) == (96, 96)
    assert all(found["segmentation"]["size"] == [96, 96] for found in answer["objects"])
    assert [one["id"] for one in answer["segments"]] == [one["id"] for one in expected.panoptic.segments]
    assert set(answer["milliseconds"]) == {"decode", "model", "write"}
    json.dumps(answer, allow_nan=False)


def test_attention_is_that_of_the_last_decoder_layer(detector: Detector):
    answer = detector.attention(scene(3))
    found = detector.detect(scene(3))["objects"]
    assert list(answer["maps"]) == [one["query"] for one in found]
    with record_attention(detector.predictor.model) as maps:
        detector.predictor(Image.open(io.BytesIO(scene(3))))
    height, width = maps.decoder[-1].shape[-2:]
    assert (answer["height"], answer["width"]) == (height, width)
    for query, coded in answer["maps"].items():
        cells = np.frombuffer(base64.b64decode(coded), np.uint8).reshape(height, width)
        weights = maps.decoder[-1][0, query].numpy()
        np.testing.assert_allclose(cells / 255, weights / weights.max(), atol=0.01)


def test_a_model_that_does_not_tell_has_no_attention(detector: Detector):
    class Exported:
        categories, device = detector.predictor.categories, "cpu"
        predicted = detector.predictor.predicted

    exported = Detector(Exported(), 1000)
    assert exported.about()["attention"] is False
    with pytest.raises(Refused) as refused:
        exported.attention(scene())
    assert refused.value.code == "no_attention"


def test_only_things_are_toggles_of_a_panoptic_model(detector: Detector):
    about = detector.about()
    assert about["attention"] is True
    assert [one["name"] for one in about["categories"] if one["predicted"]] == ["circle", "square", "triangle"]
    assert len({one["color"] for one in about["categories"]}) == 6


def test_the_maps_threshold_is_known_and_may_be_another(detector: Detector):
    assert detector.about()["panoptic"] == 0.85
    low = Detector(detector.predictor, 1_000_000, panoptic_threshold=0.01)
    assert low.about()["panoptic"] == low.about()["min_score"] == 0.01
    assert Detector(detector.predictor, 1_000_000, panoptic_threshold=1).detect(scene(3))["segments"] == []
    plain = Predictor(hubconf.SHIPPED / "detr_tiny_shapes.pth", "cpu")
    assert Detector(plain, 1_000_000).about()["panoptic"] is None
    assert "segments" not in Detector(plain, 1_000_000).detect(scene(3))
    with pytest.raises(ValueError, match="not: omit it"):
        Detector(plain, 1_000_000, panoptic_threshold=0.5)


def test_names_are_shown_without_what_steers_a_terminal_or_reorders_text(detector: Detector):
    class Named:
        categories, device = [{"id": 1, "name": "cat\u202e\n<b>"}], "cpu"

        def predicted(self) -> dict[int, str]:
            return {1: ""}

    (category,) = Detector(Named(), 1000).about()["categories"]
    assert category["label"] == "cat\\u202e\\n<b>"
    assert category["name"] == "cat\u202e\n<b>"  # for the JSON


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("tag", [3, 6])
def test_pictures_are_turned_upright(kind: str, tag: int):
    image = Image.new("RGB", (40, 20), "white")
    image.paste("red", (0, 0, 20, 10))
    exif = Image.Exif()
    exif[0x0112] = tag
    upright, turn = decode(encoded(image, kind, exif=exif.tobytes()), 10_000)
    assert turn == (tag if kind == "WEBP" else 1)  # browsers turn the others themselves
    red = {3: (30, 15), 6: (15, 10)}[tag]
    assert upright.size == {3: (40, 20), 6: (20, 40)}[tag]
    assert upright.getpixel(red)[1] < 60 < 200 < upright.getpixel((0, upright.height - 1))[1]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_all_modes_become_rgb(mode: str):
    content = encoded(Image.new("RGB", (8, 8), "gray").convert(mode), "JPEG" if mode == "CMYK" else "PNG")
    assert decode(content, 10_000)[0].mode == "RGB"


def test_masks_of_a_large_picture_are_those_of_its_best_objects(detector: Detector, monkeypatch: pytest.MonkeyPatch):
    every = detector.detect(scene(1))["objects"]
    assert len(every) > 1
    monkeypatch.setattr(looking, "MASK_PIXELS", 96 * 96)
    assert detector.detect(scene(1))["objects"] == every[:1]


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_extreme_shapes_are_looked_at_or_refused(detector: Detector, size: tuple[int, int]):
    try:
        assert detector.detect(encoded(Image.new("RGB", size)))["width"] == size[0]
    except Refused as refused:
        assert refused.status == 422 and refused.sentence


def test_memory_that_runs_out_is_said(detector: Detector, monkeypatch: pytest.MonkeyPatch):
    def fail(*inputs, **settings):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(detector, "predictor", type("Small", (), {"__call__": fail, "postprocessors": {}})())
    with pytest.raises(Refused) as refused:
        detector.detect(scene())
    assert (refused.value.status, refused.value.code) == (503, "memory")
