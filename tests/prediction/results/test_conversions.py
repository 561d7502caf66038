"""Predictions as plain data, as COCO JSON, as another library's detections, and in a notebook."""

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from prediction.panoptic_map import PanopticMap
from prediction.result import Prediction, to_coco


def prediction(masks: bool = False, size: tuple[int, int] = (40, 30)) -> Prediction:
    pixels = torch.zeros(2, size[1], size[0], dtype=torch.bool)
    pixels[0, 5:10, 5:15] = pixels[1, 2:4, 2:4] = True
    return Prediction(
        Image.new("RGB", size, "grey"),
        boxes=torch.tensor([[5.0, 5.0, 15.0, 10.0], [2.0, 2.0, 4.0, 4.0]]),
        scores=torch.tensor([0.75, 0.5]),
        labels=torch.tensor([7, 3]),
        names=["cat", "dog\x1b"],
        queries=torch.tensor([4, 1]),
        masks=pixels if masks else None,
    )


def empty() -> Prediction:
    one = torch.zeros(0)
    return Prediction(Image.new("RGB", (8, 8)), one.reshape(0, 4), one, one.long(), [], one.long())


def test_a_list_of_dictionaries_is_plain_data():
    dicts = prediction().to_dicts()
    assert dicts[0] == {"label": 7, "name": "cat", "score": 0.75, "box": [5.0, 5.0, 15.0, 10.0], "query": 4}
    assert json.loads(json.dumps(dicts)) == dicts and empty().to_dicts() == []
    assert prediction(masks=True).to_dicts()[0]["segmentation"]["size"] == [30, 40]


def test_coco_json_is_loaded_by_pycocotools(tmp_path):
    categories = [{"id": 1, "name": "bird", "isthing": 1}, {"id": 7, "name": "cat"}]
    whole = to_coco({"a.png": prediction(masks=True), "b.png": empty(), "c.png": prediction()}, categories, first_id=5)
    (tmp_path / "coco.json").write_text(json.dumps(whole))
    coco = COCO(tmp_path / "coco.json")
    assert coco.getImgIds() == [5, 6, 7] and coco.imgs[5] == {"id": 5, "file_name": "a.png", "width": 40, "height": 30}
    assert [len(coco.getAnnIds(number)) for number in (5, 6, 7)] == [2, 0, 2]
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == ["bird", "dog\x1b", "cat"]
    first = coco.loadAnns(coco.getAnnIds(5))[0]
    assert first["bbox"] == [5.0, 5.0, 10.0, 5.0] and coco.annToMask(first).sum() == 50 and first["score"] == 0.75
    assert prediction().to_coco("c.png", 9)["annotations"][1]["image_id"] == 9
    assert sorted(coco.loadRes(whole["annotations"]).getAnnIds()) == [1, 2, 3, 4]


@pytest.mark.parametrize("masks", [False, True])
def test_supervision_gets_boxes_masks_scores_ids_and_names(masks, monkeypatch):
    """With a stand-in: the package brings OpenCV, which takes 150 MB."""
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))
    found = prediction(masks).to_supervision()
    assert found.xyxy.shape == (2, 4) and found.xyxy.dtype == np.float32
    assert found.confidence.tolist() == [0.75, 0.5] and found.class_id.tolist() == [7, 3]
    assert found.data["class_name"].tolist() == ["cat", "dog\x1b"] and found.tracker_id is None
    assert found.mask is None if not masks else found.mask.dtype == bool and found.mask.shape == (2, 30, 40)
    assert empty().to_supervision().xyxy.shape == (0, 4)


def test_the_installed_supervision_takes_them():
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    found = prediction(masks=True).to_supervision()
    assert isinstance(found, supervision.Detections) and len(found) == 2
    assert found[found.class_id == 3].data["class_name"].tolist() == ["dog\x1b"]
    assert found.xyxy.tolist() == prediction().boxes.tolist() and found.area.tolist() == [50, 4]
    tracked = prediction().to_supervision(track_ids=[7, None])
    assert tracked[tracked.tracker_id == 7].class_id.tolist() == [7] and tracked.tracker_id.tolist() == [7, -1]
    assert len(supervision.Detections.merge([found, prediction(masks=True).to_supervision()])) == 4
    assert empty().to_supervision().is_empty()


def test_without_supervision_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="to_supervision.. needs: pip install supervision$"):
        prediction().to_supervision()


def test_a_notebook_shows_the_drawn_picture_and_the_panoptic_map():
    shown = Image.open(io.BytesIO(prediction()._repr_png_()))
    assert shown.tobytes() == prediction().draw().tobytes()
    ids = np.ones((30, 40), dtype=np.int32)
    mapped = PanopticMap(ids, [{"id": 1, "category_id": 3, "name": "wall", "isthing": False, "area": 1200}])
    both = Prediction(**{**vars(prediction()), "panoptic": mapped})
    assert Image.open(io.BytesIO(both._repr_png_())).tobytes() == both.draw_panoptic().tobytes()


def test_a_notebook_gets_no_more_than_1280_pixels_a_side():
    shown = Image.open(io.BytesIO(prediction(masks=True, size=(4000, 60))._repr_png_()))
    assert max(shown.size) <= 1280
