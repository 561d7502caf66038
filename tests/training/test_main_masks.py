"""The command with masks: a box model, a mask head on it, both together, and what they are evaluated by."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main
from evaluation.evaluation import score
from tests.helpers.runs import flags
from util.checkpoint import load_checkpoint

WIDTHS = ("--hidden_dim", "128", "--nheads", "8", "--dim_feedforward", "32")
DATA = "--backbone_weights none --train_sizes 64 --max_size 64 --val_size 64 --no_crop --device cpu --num_workers 0"
PANOPTIC = ("--dataset_file", "coco_panoptic")


@pytest.fixture(scope="module", autouse=True)
def no_reports():
    """The evaluation's report has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.validation.write_evaluation", lambda *args, **more: {})
        yield


def second_stage(data: Path, boxes: Path, out: Path, *more: str) -> list[str]:
    """The flags of mask training, which takes the model's settings from the box checkpoint."""
    stage = ["--masks", "--frozen_weights", str(boxes), "--coco_path", str(data), "--output_dir", str(out)]
    return [*stage, *PANOPTIC, *DATA.split(), "--batch_size", "4", "--epochs", "2", *more]


def last_line(folder: Path) -> dict:
    return json.loads((folder / "log.txt").read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def boxes(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a box model of things and stuff."""
    out = tmp_path_factory.mktemp("boxes")
    settings = [*WIDTHS, "--pos_temperature", "20", "--epochs", "1", "--eval_every", "5"]
    assert main.run(flags(shapes, *PANOPTIC, *settings, "--output_dir", str(out))) == 0
    return out / "checkpoint.pth"


@pytest.fixture(scope="module")
def masks(shapes: Path, boxes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a mask head's two epochs on that box model."""
    out = tmp_path_factory.mktemp("masks")
    assert main.run(second_stage(shapes, boxes, out, "--lr", "1e-3")) == 0
    return out


def test_a_box_model_of_panoptic_data_knows_things_and_stuff(boxes: Path):
    checkpoint, line = load_checkpoint(boxes), last_line(boxes.parent)
    assert checkpoint["args"]["num_classes"] == 7
    kinds = {category["name"]: category["isthing"] for category in checkpoint["categories"]}
    assert kinds == {"circle": 1, "square": 1, "triangle": 1, "stripes": 0, "checks": 0, "clouds": 0}
    assert len(line["test_coco_eval_bbox"]) == 12 and "test_PQ_all" not in line


def test_only_the_mask_head_learns(boxes: Path, masks: Path):
    before, after = load_checkpoint(boxes)["model"], load_checkpoint(masks / "checkpoint.pth")["model"]
    for name, value in before.items():
        assert torch.equal(after[f"detr.{name}"], value), name
    states = load_checkpoint(masks / "checkpoint.pth")["optimizer"]["state"]
    own = [name for name in after if not name.startswith("detr.")]
    assert len(states) == len(own) and {name.split(".")[0] for name in own} == {"mask_head", "bbox_attention"}
    lines = [json.loads(line) for line in (masks / "log.txt").read_text().splitlines()]
    assert lines[1]["train_loss_mask"] < lines[0]["train_loss_mask"]


def test_the_detectors_settings_are_those_of_its_checkpoint(boxes: Path, masks: Path):
    before, after = load_checkpoint(boxes)["args"], load_checkpoint(masks / "checkpoint.pth")["args"]
    for name in ("backbone", "backbone_norm", "hidden_dim", "enc_layers", "num_queries", "pos_temperature"):
        assert after[name] == before[name], name
    assert after["pos_temperature"] == 20


def test_a_setting_that_is_named_and_does_not_fit_is_an_error(shapes, boxes, tmp_path, capsys):
    assert main.run(second_stage(shapes, boxes, tmp_path, "--num_queries", "9")) == 1
    assert "--num_queries 9 contradicts" in capsys.readouterr().err


def test_masks_are_evaluated_in_three_ways(masks: Path):
    line = last_line(masks)
    assert len(line["test_coco_eval_bbox"]) == len(line["test_coco_eval_masks"]) == 12
    for group, classes in (("all", 6), ("th", 3), ("st", 3)):
        quality = line[f"test_PQ_{group}"]
        assert quality["n"] <= classes and 0 <= quality["pq"] <= quality["sq"] <= 1
    assert {"train_loss_mask", "train_loss_dice", "test_loss_mask_unscaled"} <= line.keys()
    assert "train_loss_mask_0" not in line


def test_panoptic_maps_are_left_in_the_official_format(masks: Path, shapes: Path):
    written = json.loads((masks / "panoptic_eval" / "predictions.json").read_text())["annotations"]
    truth = json.loads((shapes / "annotations" / "panoptic_val2017.json").read_text())["images"]
    assert sorted(a["image_id"] for a in written) == sorted(image["id"] for image in truth)
    for annotation in written:
        with Image.open(next((masks / "panoptic_eval").rglob(annotation["file_name"]))) as picture:
            assert np.asarray(picture).shape == (64, 64, 3)


def test_a_mask_checkpoint_serves_as_frozen_weights_too(shapes: Path, masks: Path, tmp_path: Path):
    source = masks / "checkpoint.pth"
    assert main.run(second_stage(shapes, source, tmp_path, "--max_steps", "1")) == 0
    before, after = load_checkpoint(source)["model"], load_checkpoint(tmp_path / "checkpoint.pth")["model"]
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("detr."))


def test_an_interrupted_mask_training_continues_to_the_bit(shapes: Path, boxes: Path, masks: Path, tmp_path: Path):
    stage = second_stage(shapes, boxes, tmp_path, "--lr", "1e-3")
    assert main.run([*stage, "--epochs", "1"]) == 0
    assert main.run([*stage, "--resume", "auto"]) == 0
    whole, parts = (load_checkpoint(folder / "checkpoint.pth")["model"] for folder in (masks, tmp_path))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_eval_repeats_the_numbers_of_the_run(shapes: Path, masks: Path, tmp_path: Path, caplog):
    source = masks / "checkpoint.pth"
    with caplog.at_level("INFO"):
        assert main.run(second_stage(shapes, source, tmp_path, "--eval", "--resume", str(source))) == 0
    quality = last_line(masks)["test_PQ_all"]
    row = next(line for line in caplog.text.splitlines() if line.startswith("All"))
    assert row.split()[1:3] == [f"{100 * quality['pq']:.1f}", f"{100 * quality['sq']:.1f}"]


def test_boxes_and_masks_train_together_on_instances(shapes: Path, tmp_path: Path):
    assert main.run(flags(shapes, *WIDTHS, "--masks", "--epochs", "1", "--output_dir", str(tmp_path))) == 0
    line, checkpoint = last_line(tmp_path), load_checkpoint(tmp_path / "checkpoint.pth")
    assert len(line["test_coco_eval_masks"]) == 12 and "test_PQ_all" not in line
    assert any(name.startswith("detr.transformer") for name in checkpoint["model"])
    assert len(checkpoint["optimizer"]["param_groups"]) == 2, "the backbone learns, too"


def test_a_box_checkpoint_of_other_classes_is_an_error(shapes: Path, tmp_path: Path, capsys):
    out = tmp_path / "instances"
    assert main.run(flags(shapes, *WIDTHS, "--max_steps", "1", "--output_dir", str(out))) == 0
    assert main.run(second_stage(shapes, out / "checkpoint.pth", tmp_path / "masks")) == 1
    assert "but the model has classes 0..3" in capsys.readouterr().err


def test_a_frozen_checkpoint_that_holds_no_detector_is_an_error(shapes: Path, tmp_path: Path, capsys):
    torch.save({"model": {"weight": torch.zeros(3)}}, tmp_path / "other.pth")
    assert main.run(second_stage(shapes, tmp_path / "other.pth", tmp_path / "out")) == 1
    assert "other.pth is not a DETR" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "stats, expected",
    [
        ({"coco_eval_bbox": [0.1]}, 0.1),
        ({"coco_eval_bbox": [0.1], "coco_eval_masks": [0.2]}, 0.2),
        ({"coco_eval_bbox": [0.1], "coco_eval_masks": [0.2], "PQ_all": {"pq": 0.3}}, 0.3),
    ],
)
def test_the_best_checkpoint_is_best_in_the_hardest_task(stats, expected):
    assert score(stats) == expected


def test_a_bad_validation_image_is_skipped_in_panoptic_quality_too(shapes: Path, masks: Path, tmp_path: Path):
    broken = tmp_path / "data"
    shutil.copytree(shapes, broken)
    next((broken / "val2017").iterdir()).write_bytes(b"no image")
    out = tmp_path / "out"
    stage = second_stage(broken, masks / "checkpoint.pth", out, "--max_steps", "1", "--skip_bad_images")
    assert main.run(stage) == 0
    assert last_line(out)["test_PQ_all"]["n"] >= 1
    assert len(json.loads((out / "panoptic_eval" / "predictions.json").read_text())["annotations"]) == 4
