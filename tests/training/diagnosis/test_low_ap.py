"""After a run whose AP is near 0, `--overfit` is offered in one line, with the cause where it can be seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import main
from evaluation.evaluation import Evaluation
from tests.helpers.paths import REPOSITORY
from tests.helpers.runs import flags
from training.diagnosis import causes


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: {})


def offers(capsys: pytest.CaptureFixture) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("AP is near 0")]


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ([], None),
        (["--num_queries", "2"], causes.QUERIES),
        (["--trainable_layers", "0"], causes.FROZEN),
        (["--lr", "1"], causes.RATE_HIGH),
    ],
)
def test_a_run_that_has_learned_nothing_ends_with_an_offer(shapes, capsys, more, cause):
    assert main.run(flags(shapes, "--epochs", "1", *more)) == 0
    (line,) = offers(capsys)
    assert "run the same command with --overfit 8" in line
    assert (f"likeliest cause so far [{cause}]" in line) if cause else "cause" not in line


@pytest.mark.parametrize("ap", [0.011, -1.0])
def test_a_run_that_has_learned_and_one_with_nothing_to_find_do_not(shapes, capsys, monkeypatch, ap):
    finish = Evaluation.finish
    monkeypatch.setattr(Evaluation, "finish", lambda self: finish(self) | {"coco_eval_bbox": [ap] * 12})
    assert main.run(flags(shapes, "--epochs", "1")) == 0
    assert offers(capsys) == []


def test_validation_classes_that_a_good_detector_calls_by_other_ids_are_named(shapes, tmp_path, capsys):
    data: Path = shutil.copytree(shapes, tmp_path / "data")
    file = data / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation["category_id"] = annotation["category_id"] % 3 + 1
    file.write_text(json.dumps(content))
    start = ["--init_from", str(REPOSITORY / "weights" / "detr_tiny_shapes.pth"), "--trainable_layers", "5"]
    rates = ["--lr", "1e-6", "--lr_backbone", "1e-6", "--num_workers", "0", "--device", "cpu"]
    assert main.run(["--coco_path", str(data), *start, *rates, "--max_steps", "1"]) == 0
    (line,) = offers(capsys)
    assert f"[{causes.LABELS}]: the trained model finds" in line


def test_pictures_that_can_no_longer_be_read_do_not_fail_the_run(shapes, capsys, monkeypatch):
    def gone(*args):
        raise OSError("the folder is gone")

    monkeypatch.setattr("training.diagnosis.low_ap.look_at_data", gone)
    assert main.run(flags(shapes, "--epochs", "1")) == 0
    assert len(offers(capsys)) == 1
