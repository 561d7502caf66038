"""`--overfit`: planted causes are found by short runs, a healthy one passes, and nothing is left to resume."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import main
from datasets.coco import CocoDetection
from tests.helpers.paths import REPOSITORY
from tests.helpers.runs import flags, signal_at
from training.diagnosis import causes
from training.diagnosis.overfit import OverfitFailed

DETECTOR = str(REPOSITORY / "weights" / "detr_tiny_shapes.pth")
FROM_DETECTOR = ["--init_from", DETECTOR, "--trainable_layers", "5", "--lr", "1e-4", "--lr_backbone", "1e-4"]
FROM_DETECTOR += ["--num_workers", "0", "--device", "cpu", "--batch_size", "4"]


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few evaluations, without their files and pictures, which take longer than the trainings here."""
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: {})
    monkeypatch.setattr("training.diagnosis.overfit.EVALUATIONS", 2)


def result_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "overfit" / "overfit.json").read_text())


def overfit(data: Path, out: Path, *more: str, pictures: int = 3) -> int:
    """The exit code of a short test of a tiny model; later flags win."""
    limit = ["--overfit", str(pictures), "--max_steps", "10"]
    return main.run(flags(data, "--output_dir", str(out), *limit, *more))


def overfit_from_detector(data: Path, out: Path, *more: str) -> int:
    """The exit code of a test of the shipped detector, which knows the shapes already."""
    limit = ["--overfit", "8", "--max_steps", "8"]
    return main.run(["--coco_path", str(data), "--output_dir", str(out), *FROM_DETECTOR, *limit, *more])


def plant(shapes: Path, folder: Path, change: Callable[[dict], None]) -> Path:
    """A copy of the data whose training annotations are changed."""
    shutil.copytree(shapes, folder)
    file = folder / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return folder


def as_corners(content: dict) -> None:
    """All but one: a file of nothing but corners is refused when it is read."""
    for annotation in content["annotations"][1:]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x, y, x + w, y + h]
    content["annotations"][0]["bbox"] = [40, 40, 10, 10]


def called_by_the_next_id(content: dict) -> None:
    for annotation in content["annotations"]:
        annotation["category_id"] = (annotation["category_id"] - 2) % 3 + 1


def test_what_a_detector_knows_is_learned_at_once(shapes, tmp_path, capsys):
    assert overfit_from_detector(shapes, tmp_path) == 0
    result = result_of(tmp_path)
    assert result["passed"] and result["ap50"] > 0.9 and result["cause"] is None
    assert result["causes"] == [] and result["noticed"] == [] and 0 < result["steps"] <= 8
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == result["sentence"] and last.startswith("overfit passed: AP50 ")


SETTINGS = {
    causes.RATE_ZERO: ["--lr", "0", "--lr_backbone", "0"],
    causes.QUERIES: ["--num_queries", "2"],
    causes.TINY: ["--val_size", "4"],
    causes.FROZEN: ["--trainable_layers", "3"],
    causes.RATE_HIGH: ["--lr", "1", "--lr_backbone", "1"],
}


@pytest.mark.parametrize("cause", SETTINGS)
def test_a_cause_in_the_settings_is_found(shapes, tmp_path, capsys, cause):
    assert overfit(shapes, tmp_path, *SETTINGS[cause]) == 3
    result = result_of(tmp_path)
    assert result["cause"] == cause and not result["passed"]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("overfit failed: AP50 ") and f"likeliest cause [{cause}]" in last


def test_the_same_settings_without_a_fault_show_no_cause_but_few_steps(shapes, tmp_path):
    assert overfit(shapes, tmp_path) == 3
    assert [cause["name"] for cause in result_of(tmp_path)["causes"]] == [causes.STEPS]


def test_boxes_that_are_corners_are_found(shapes, tmp_path):
    assert overfit(plant(shapes, tmp_path / "data", as_corners), tmp_path, pictures=8) == 3
    assert result_of(tmp_path)["cause"] == causes.CORNERS


def test_labels_that_the_starting_detector_calls_otherwise_are_found(shapes, tmp_path, capsys):
    data = plant(shapes, tmp_path / "data", called_by_the_next_id)
    assert overfit_from_detector(data, tmp_path, "--max_steps", "1") == 3
    assert result_of(tmp_path)["cause"] == causes.LABELS
    assert "before the first step: the detector" in capsys.readouterr().out


def test_labels_that_reach_the_model_shifted_are_found(shapes, tmp_path, monkeypatch):
    """A fault between the file and the model, as in a data set of one's own."""
    original = CocoDetection.make_target

    def shifted(*args):
        target = original(*args)
        return target | {"labels": target["labels"] - 1}

    monkeypatch.setattr(CocoDetection, "make_target", shifted)
    assert overfit(shapes, tmp_path) == 3
    assert result_of(tmp_path)["cause"] == causes.LABELS


def test_boxes_that_reach_the_model_as_corners_are_found(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.transforms.box_xyxy_to_cxcywh", lambda boxes: boxes)
    assert overfit(shapes, tmp_path) == 3
    assert result_of(tmp_path)["cause"] == causes.CORNERS


def test_ids_beyond_the_classes_and_unlisted_ones_are_refused_when_they_are_read(shapes, tmp_path, capsys):
    assert overfit(shapes, tmp_path, "--num_classes", "3") == 1
    assert "has category 3, but the model has classes 0..2" in capsys.readouterr().err

    def from_zero(content: dict) -> None:
        for annotation in content["annotations"]:
            annotation["category_id"] -= 1

    assert overfit(plant(shapes, tmp_path / "data", from_zero), tmp_path) == 1
    assert "has category_id 0, which `categories` does not list" in capsys.readouterr().err


def test_an_ordinary_run_in_the_same_folder_is_neither_hindered_nor_resumed_from(shapes, tmp_path):
    assert overfit(shapes, tmp_path) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["overfit"]
    assert not list(tmp_path.rglob("checkpoint*.pth"))
    assert main.run(flags(shapes, "--output_dir", str(tmp_path), "--resume", "auto", "--epochs", "1")) == 0
    saved = (tmp_path / "checkpoint.pth").read_bytes()
    assert overfit(shapes, tmp_path, "--max_steps", "2", "--resume", "auto") == 3, "a second time, and beside a run"
    assert (tmp_path / "checkpoint.pth").read_bytes() == saved
    assert len((tmp_path / "overfit" / "log.txt").read_text().splitlines()) == 2, "of the second one"


def test_a_data_set_without_validation_images_is_enough(shapes, tmp_path):
    data = tmp_path / "data" / "train"
    shutil.copytree(shapes / "train2017", data)
    shutil.copy(shapes / "annotations" / "instances_train2017.json", data / "_annotations.coco.json")
    run = flags(data.parent, "--output_dir", str(tmp_path), "--overfit", "2", "--max_steps", "2")
    run[run.index("--coco_path")] = "--data"
    assert main.run(run) == 3


def test_the_time_limit_ends_it_after_a_step(shapes, tmp_path, capsys):
    assert overfit(shapes, tmp_path, "--overfit_minutes", "1e-6") == 3
    assert result_of(tmp_path)["steps"] == 1
    assert "after 1 step (--overfit_minutes 1e-06 were over)" in capsys.readouterr().out


def test_a_stop_ends_it_without_a_result(shapes, tmp_path, capsys, monkeypatch):
    signal_at(monkeypatch, 2, signal.SIGTERM)
    assert overfit(shapes, tmp_path) == 143
    assert "the test with --overfit was stopped; it has no result" in capsys.readouterr().out
    assert not (tmp_path / "overfit" / "overfit.json").exists()


def test_numbers_that_are_not_finite_are_explained_by_the_rate(shapes, tmp_path):
    assert overfit(shapes, tmp_path, "--lr", "1e30", "--lr_backbone", "1e30", "--clip_max_norm", "0") == 3
    assert result_of(tmp_path)["cause"] == causes.RATE_HIGH


def test_the_pictures_are_seen_without_augmentation(shapes, tmp_path, monkeypatch):
    seen: dict[int, set[bytes]] = {}
    original = main.OverfitTest._train_round

    def watch(self, rounds, *args):
        class Watched(type(rounds)):
            def __iter__(inner):
                for samples, targets in super().__iter__():
                    for image, target in zip(samples.tensors, targets):
                        seen.setdefault(int(target["image_id"]), set()).add(image.numpy().tobytes())
                    yield samples, targets

        rounds.__class__ = Watched
        return original(self, rounds, *args)

    monkeypatch.setattr(main.OverfitTest, "_train_round", watch)
    assert overfit(shapes, tmp_path, "--max_steps", "4", "--batch_size", "1") == 3
    assert len(seen) == 3 and all(len(forms) == 1 for forms in seen.values())


@pytest.mark.parametrize("other", [["--eval", "--resume", "x.pth"], ["--resume", "x.pth"]])
def test_it_continues_no_run(shapes, tmp_path, capsys, other):
    assert overfit(shapes, tmp_path, *other) == 1
    assert f"and {other[0]}" in capsys.readouterr().err


def test_from_python_a_failure_is_an_exception_with_the_result(shapes):
    args = main.parse(flags(shapes, "--overfit", "2", "--max_steps", "1"))
    with pytest.raises(OverfitFailed, match="overfit failed") as failed:
        main.main(args)
    assert failed.value.result["image_ids"] and failed.value.result["passed"] is False


def test_more_pictures_than_there_are_is_said(shapes, tmp_path, capsys):
    assert overfit(shapes, tmp_path, "--max_steps", "1", pictures=100) == 3
    assert "--overfit 100: there are only 8 pictures" in capsys.readouterr().out
    assert len(result_of(tmp_path)["image_ids"]) == 8


def test_a_recipe_is_tested_too(shapes, tmp_path):
    run = ["--coco_path", str(shapes), "--output_dir", str(tmp_path), "--recipe", "small", "--device", "cpu"]
    code = main.run([*run, "--num_workers", "0", "--overfit", "2", "--max_steps", "2", "--val_size", "64"])
    result = result_of(tmp_path)
    assert code == (0 if result["passed"] else 3) and 0 < result["steps"] <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["overfit"]
