"""detections.png: ground truth next to detections, on images of the evaluated set."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from evaluation import pictures, report
from evaluation.report import write_evaluation
from tests.helpers.coco_files import annotation, captured_warnings, write_coco
from tests.helpers.coco_samples import evaluated
from util.pictures.figure_parts import new_figure


@pytest.fixture(autouse=True)
def only_detections_are_drawn(monkeypatch):
    monkeypatch.setattr(report, "draw_evaluation", pictures.draw_evaluation)
    for name in ("draw_per_class", "draw_precision_recall", "draw_f1", "draw_confusion"):
        monkeypatch.setattr(pictures, name, lambda *parts: new_figure(1, 1))


@pytest.fixture
def data(tmp_path) -> tuple[Path, COCO]:
    """Eight images of 40 x 30 pixels with a dog each, and a crowd of cats in the first one."""
    dogs = [annotation(i, i, [5, 5, 20, 10], category_id=7) for i in range(1, 9)]
    crowd = annotation(
        9, 1, [0, 0, 40, 30], category_id=2, iscrowd=1, segmentation={"size": [30, 40], "counts": [0, 1200]}
    )
    folder, file = write_coco(tmp_path, [*dogs, crowd], count=8)
    return folder, COCO(str(file))


def found_in(coco: COCO) -> dict:
    """The dog of each image, detected with a high and again with a low score."""
    boxes = torch.tensor([[5.0, 5, 25, 15], [5, 5, 25, 14]])
    return {i: {"boxes": boxes, "labels": torch.tensor([7, 7]), "scores": torch.tensor([0.9, 0.2])} for i in coco.imgs}


def pairs_drawn(monkeypatch, coco, folder, out) -> list[tuple]:
    """The arguments of the picture pairs that are drawn."""
    drawn = []
    draw = pictures.ground_truth_beside_prediction
    monkeypatch.setattr(
        pictures,
        "ground_truth_beside_prediction",
        lambda *parts, **more: drawn.append(parts) or draw(*parts, **more),
    )
    write_evaluation(out, evaluated(coco, found_in(coco), "auto"), epoch=1, batch_size=1, image_folder=folder)
    return drawn


def test_evenly_spaced_images_show_ground_truth_and_detections_above_the_best_threshold(data, tmp_path, monkeypatch):
    folder, coco = data
    drawn = pairs_drawn(monkeypatch, coco, folder, tmp_path / "out")
    numbers = [1, 2, 4, 5, 7, 8]
    for number, (image, truth, names, boxes, found, scores) in zip(numbers, drawn, strict=True):
        whole = np.asarray(Image.open(folder / f"{number}.png").resize(image.size, Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(np.asarray(image), whole)
        scale = image.width / 40
        assert image.size == (448, 336)
        np.testing.assert_allclose(truth, [[5 * scale, 5 * scale, 25 * scale, 15 * scale]])  # without the crowd
        np.testing.assert_allclose(boxes, truth)
        assert (list(names), list(found), np.round(scores, 2).tolist()) == (["dog"], ["dog"], [0.9])
    with Image.open(tmp_path / "out" / "eval" / "detections.png") as sheet:
        assert sheet.width > 4 * 448 and sheet.height > 3 * 336


def test_unreadable_images_are_skipped(data, tmp_path, monkeypatch):
    folder, coco = data
    (folder / "1.png").unlink()
    (folder / "2.png").write_text("no image")
    with captured_warnings() as warnings:
        assert len(pairs_drawn(monkeypatch, coco, folder, tmp_path / "out")) == 4
    assert warnings == []


def test_without_a_readable_image_there_is_no_picture_of_detections(data, tmp_path):
    _, coco = data
    with captured_warnings() as warnings:
        evaluator = evaluated(coco, found_in(coco), "auto")
        write_evaluation(tmp_path / "out", evaluator, epoch=1, batch_size=1, image_folder=tmp_path / "absent")
    assert not (tmp_path / "out" / "eval" / "detections.png").exists() and warnings == []
    assert json.loads((tmp_path / "out" / "eval" / "f1.json").read_text())["overall"]["best"]["f1"] == 1
