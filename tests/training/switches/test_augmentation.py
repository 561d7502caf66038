"""Runs with `--no_flip`, `--color_jitter`, `--repeat_threshold`: they go on to the bit, and follow the checkpoint."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

import main
from tests.helpers.runs import flags, signal_at
from tools.reliability.tiny_run import differences
from util.checkpoint import load_checkpoint

RUN = ["--batch_size", "2", "--epochs", "2"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without reports, which take longer than the trainings here."""
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)


@pytest.fixture(scope="module")
def rare(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn data, with triangles in one training picture only."""
    folder = tmp_path_factory.mktemp("rare")
    for part in ("train2017", "val2017"):
        (folder / part).symlink_to(shapes / part)
    (folder / "annotations").mkdir()
    for part in ("train", "val"):
        name = f"annotations/instances_{part}2017.json"
        data = json.loads((shapes / name).read_text())
        with_triangles = sorted({a["image_id"] for a in data["annotations"] if a["category_id"] == 3})
        for annotation in data["annotations"]:
            if annotation["category_id"] == 3 and annotation["image_id"] != with_triangles[0]:
                annotation["category_id"] = 1
        (folder / name).write_text(json.dumps(data))
    return folder


def train(data: Path, out: Path, *more: str) -> int:
    return main.run(flags(data, *RUN, "--output_dir", str(out), *more))


@pytest.mark.parametrize(
    "switch",
    [
        "--repeat_threshold 0.9 --no_flip --color_jitter 0.3",
        "--repeat_threshold 0.9 --num_workers 2 --group_by_aspect --lr_schedule cosine",
    ],
)
def test_a_stop_goes_on_to_the_bit(rare, tmp_path, monkeypatch, switch):
    assert train(rare, tmp_path / "whole", *switch.split()) == 0
    with monkeypatch.context() as patch:
        signal_at(patch, 3, signal.SIGTERM)
        assert train(rare, tmp_path / "halves", *switch.split()) == 0
    assert load_checkpoint(tmp_path / "halves" / "checkpoint.pth")["step"] == 3
    assert train(rare, tmp_path / "halves", "--num_workers", "0", "--resume", "auto") == 0  # the switches follow
    assert differences(tmp_path / "halves", tmp_path / "whole") == []


def test_an_epoch_is_longer_by_the_repetitions(rare, tmp_path, capsys):
    assert train(rare, tmp_path, "--repeat_threshold", "0.9", "--epochs", "1") == 0
    said = capsys.readouterr().out
    assert "an epoch holds 10 images, 8 of them different; repeat factors: triangle 2.68" in said
    assert load_checkpoint(tmp_path / "checkpoint.pth")["step"] == 5


def test_repetition_that_begins_inside_an_epoch_is_named_and_begins_it_anew(rare, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        signal_at(patch, 3, signal.SIGTERM)
        assert train(rare, tmp_path) == 0
    assert train(rare, tmp_path, "--repeat_threshold", "0.9", "--resume", "auto", "--epochs", "1") == 0
    said = capsys.readouterr().out
    assert "--repeat_threshold is 0.9, it was 0" in said and "from its beginning" in said


@pytest.mark.parametrize("flag", ["--color_jitter 1.5", "--repeat_threshold -1", "--color_jitter nan", "--val_share 1"])
def test_impossible_values_are_refused(shapes, capsys, flag):
    name, value = flag.split()
    assert main.run([*flags(shapes), f"{name}={value}"]) == 1
    assert f"error: {name} must be" in capsys.readouterr().err
