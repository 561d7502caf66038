"""Predictions and their output folder, without a model."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from prediction import result as prediction_result
from prediction.folder import PredictionFolder
from prediction.result import Prediction
from util.pictures.boxes import color_of


def prediction(*names: str) -> Prediction:
    """A detection for each name, ids in the order of first appearance; boxes of 10 x 20 pixels."""
    ids = {name: number for number, name in enumerate(dict.fromkeys(names), start=1)}
    boxes = torch.tensor([[1.0, 2.0, 11.0, 22.0]]).repeat(len(names), 1)
    labels = torch.tensor([ids[name] for name in names])
    order = torch.arange(len(names))
    return Prediction(Image.new("RGB", (60, 40)), boxes, torch.linspace(0.9, 0.5, len(names)), labels, [*names], order)


def test_boxes_are_scaled_with_the_image():
    stretched = prediction("cat").resized(Image.new("RGB", (180, 20)))
    assert stretched.boxes.tolist() == [[3.0, 1.0, 33.0, 11.0]] and stretched.image.size == (180, 20)


def test_counts_of_objects_and_of_images_that_contain_them(tmp_path: Path):
    folder = PredictionFolder(tmp_path, {}, pictures=False)
    folder.save("a.png", Path("a.png"), prediction("cat", "cat", "dog"))
    folder.save("b.png", Path("b.png"), prediction("cat"))
    assert folder.counts(["a.png", "b.png", "later.png"]) == ({1: 3, 2: 1}, {1: 2, 2: 1})
    assert folder.counts(["a.png"]) == ({1: 2, 2: 1}, {1: 1, 2: 1})


def test_crops_of_any_class_name_stay_in_the_class_folder(tmp_path: Path):
    folder = PredictionFolder(tmp_path, {}, pictures=False, crops=True)
    folder.save("a.png", Path("a.png"), prediction("../up", "a/b: c?"))
    crops = {path.relative_to(tmp_path / "crops").as_posix() for path in (tmp_path / "crops").rglob("*.png")}
    assert crops == {"_up/a-1.png", "a_b_ c_/a-2.png"}
    assert Image.open(tmp_path / "crops/_up/a-1.png").size == (10, 20)


def test_a_class_has_its_own_color(monkeypatch):
    shown = []
    monkeypatch.setattr(prediction_result, "draw_boxes", lambda image, boxes, texts, colors, **_: shown.extend(colors))
    prediction("cat", "dog", "cat").draw()
    assert shown[0] == shown[2] == color_of(1) and shown[1] == color_of(2) != shown[0]
