"""Drawing a checkpoint's detections, and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import ImageChops

from datasets.coco import CocoDetection, make_coco_transforms
from models.postprocess import PostProcess
from tests.helpers.layouts import coco_layouts
from tests.helpers.predict_parts import write_detector
from tools import draw_detections
from util.box_ops import box_cxcywh_to_xyxy
from util.loading.class_thresholds import ClassThresholds


class Fixed(torch.nn.Module):
    """A model that predicts one box of class 1 for every image, with a given logit."""

    def __init__(self, logit: float):
        super().__init__()
        self.logit = logit

    def forward(self, samples):
        logits = torch.tensor([[[0.0, self.logit, 0.0, 0.0, 0.0]]])
        return {"pred_logits": logits, "pred_boxes": torch.tensor([[[0.5, 0.5, 0.5, 0.5]]])}


@pytest.fixture
def sample(shapes: Path):
    transforms = make_coco_transforms("val", val_size=64, max_size=64)
    return CocoDetection(shapes / "val2017", shapes / "annotations/instances_val2017.json", transforms, False)[0]


def test_only_boxes_above_the_threshold_are_drawn(sample):
    names = {1: "circle", 2: "square", 3: "triangle"}
    post = PostProcess()
    pictures = [draw_detections.annotate(Fixed(logit), post, *sample, names, 0.5) for logit in (9.0, -9.0)]
    left = (0, 0, pictures[0].width // 2 - 8, pictures[0].height)
    assert ImageChops.difference(*(picture.crop(left) for picture in pictures)).getbbox() is None
    assert ImageChops.difference(*pictures).getbbox() is not None


def test_each_class_may_have_its_own_threshold(sample):
    score = torch.tensor([0.0, 3.0, 0.0, 0.0, 0.0]).softmax(0)[1].item()
    pictures = [
        draw_detections.annotate(Fixed(3.0), PostProcess(), *sample, {}, ClassThresholds({1: t}, 1 - t, {}))
        for t in (score - 0.01, score + 0.01)
    ]
    assert ImageChops.difference(*pictures).getbbox() is not None


def test_targets_are_drawn_in_pixels(sample, monkeypatch: pytest.MonkeyPatch):
    seen = {}
    draw = lambda image, boxes, *_, **__: seen.update(b=boxes)  # noqa: E731
    monkeypatch.setattr(draw_detections, "ground_truth_beside_prediction", draw)
    post = PostProcess()
    draw_detections.annotate(Fixed(9.0), post, *sample, {1: "circle", 2: "square", 3: "triangle"}, 0.5)
    torch.testing.assert_close(seen["b"], box_cxcywh_to_xyxy(sample[1]["boxes"]) * 64)


def test_a_checkpoint_uses_its_own_settings(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    command = [
        str(write_detector(tmp_path / "checkpoint.pth")),
        "--coco_path",
        str(shapes),
        "--out",
        str(tmp_path / "p"),
        "--count",
        "2",
    ]
    assert draw_detections.run(command) == 0
    assert "drew 2 images" in capsys.readouterr().out
    assert len(list((tmp_path / "p").glob("*.png"))) == 3


def test_best_needs_thresholds_in_the_checkpoint(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    checkpoint = str(write_detector(tmp_path / "checkpoint.pth"))
    command = [checkpoint, "--coco_path", str(shapes), "--out", str(tmp_path / "p"), "--threshold", "best"]
    assert draw_detections.run(command) == 1
    assert "checkpoint.pth has no thresholds" in capsys.readouterr().err and not (tmp_path / "p").exists()


def test_bare_weights_are_rejected_in_one_sentence(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    torch.save({"model": {}}, tmp_path / "bare.pth")
    command = [str(tmp_path / "bare.pth"), "--coco_path", str(shapes), "--out", str(tmp_path / "p")]
    assert draw_detections.run(command) == 1
    assert "has no weights" in capsys.readouterr().err


def test_the_folder_of_the_images_is_refused(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    images = {path: path.read_bytes() for path in (shapes / "val2017").iterdir()}
    checkpoint = str(write_detector(tmp_path / "checkpoint.pth"))
    assert draw_detections.run([checkpoint, "--coco_path", str(shapes), "--out", str(shapes / "val2017")]) == 1
    assert "is the input itself" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (shapes / "val2017").iterdir()} == images


@pytest.mark.parametrize(("layout", "flags"), [("roboflow", ["--eval_part", "test"]), ("label_studio", [])])
def test_data_of_any_format_are_drawn(tmp_path: Path, layout: str, flags: list[str]):
    data = getattr(coco_layouts, layout)(tmp_path / "data", (1, 2))
    argv = [
        str(write_detector(tmp_path / "detector.pth")),
        "--data",
        str(data),
        *flags,
        "--out",
        str(tmp_path / "out"),
        "--count",
        "2",
    ]
    assert draw_detections.run(argv) == 0
    first = 6 if flags else 0
    drawn = {path.name for path in (tmp_path / "out").iterdir()}
    assert drawn == {"overview.png", f"{first:06}.png", f"{first + 1:06}.png"}


def test_data_are_named_once(tmp_path: Path, capsys: pytest.CaptureFixture):
    argv = [
        str(write_detector(tmp_path / "detector.pth")),
        "--data",
        "a",
        "--coco_path",
        "b",
        "--out",
        str(tmp_path / "out"),
    ]
    assert draw_detections.run(argv) == 1
    assert "leave the other flags of the data out" in capsys.readouterr().err
