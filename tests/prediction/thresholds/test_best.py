"""`--threshold best`: each class at its own threshold, from Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from predict import Predictor
from tests.helpers.predict_parts import command, write_detector, write_panoptic, write_picture
from util.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detector(tmp_path_factory.mktemp("detector") / "plain.pth")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_picture(tmp_path_factory.mktemp("picture") / "a.png")


def with_thresholds(checkpoint: Path, out: Path, overall: float = 0.3, **by_class: float) -> Path:
    """A copy of a checkpoint with thresholds of the classes c1, c3, …"""
    classes = [{"id": int(name[1:]), "threshold": t, "f1": 0.5, "objects": 20} for name, t in by_class.items()]
    found = {"iou": 0.5, "overall": {"threshold": overall, "f1": 0.5}, "classes": classes}
    save_checkpoint(out, load_checkpoint(checkpoint) | {"thresholds": found})
    return out


def test_each_class_is_cut_at_its_own_score(plain, tmp_path):
    pictures = [write_picture(tmp_path / f"{seed}.png", seed=seed) for seed in range(6)]
    everything = Predictor(plain, "cpu")(pictures, threshold=0)
    pairs = [(score, label) for one in everything for score, label in zip(one.scores.tolist(), one.labels.tolist())]
    labels = sorted({label for _, label in pairs})
    assert len(labels) >= 2
    least = {label: sorted(score for score, own in pairs if own == label)[-2:][0] for label in labels[1:]}
    path = with_thresholds(plain, tmp_path / "a.pth", overall=1.0, **{f"c{label}": t for label, t in least.items()})
    found = Predictor(path, "cpu")(pictures, threshold="best")
    kept = [(score, label) for one in found for score, label in zip(one.scores.tolist(), one.labels.tolist())]
    assert kept == [(score, label) for score, label in pairs if score >= least.get(label, 1.0)] and kept
    assert max(map(len, Predictor(path, "cpu")(pictures, threshold="best", top_k=1))) == 1


def test_the_predictor_keeps_it_as_its_default_which_a_call_may_change(plain, picture, tmp_path):
    path = with_thresholds(plain, tmp_path / "a.pth", overall=1.0)
    predictor = Predictor(path, "cpu", threshold="best")
    assert len(predictor(picture)) == 0 and len(predictor([picture])[0]) == 0
    assert len(predictor(picture, threshold=0)) == 6
    assert len(Predictor(path, "cpu", threshold=0)(picture)) == 6
    assert predictor.class_thresholds().others == 1.0


def test_without_thresholds_best_is_an_error_that_names_the_way(plain, picture):
    for call in (
        lambda: Predictor(plain, "cpu", threshold="best"),
        lambda: Predictor(plain, "cpu")([], threshold="best"),
    ):
        with pytest.raises(CheckpointError, match=r"plain\.pth has no thresholds.*--save_thresholds"):
            call()
    content = load_checkpoint(plain)
    with pytest.raises(CheckpointError, match="the given checkpoint has no thresholds"):
        Predictor(content, "cpu", threshold="best")


@pytest.mark.parametrize("wrong", ["bst", "0.5", 1.5, -0.1, float("nan")])
def test_other_thresholds_are_refused(plain, wrong):
    with pytest.raises(ValueError, match=r"threshold must be"):
        Predictor(plain, "cpu", threshold=wrong)


def test_the_command_says_what_it_uses_and_records_it(plain, picture, tmp_path, capsys):
    path = with_thresholds(plain, tmp_path / "a.pth", c1=0.43, c3=0.71, c7=0.002)
    run = command(path, tmp_path / "out", "--threshold", "best", "--no_pictures")
    assert run(picture) == 0
    assert "thresholds from the validation set: circle 0.43, Square 0.71, triangle 0.002\n" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "progress.jsonl").read_text().splitlines()[0])["settings"]
    assert record["threshold"] == "best"
    assert record["class_thresholds"] == {"1": 0.43, "3": 0.71, "7": 0.002, "others": 0.3}
    assert run(picture, "--classes", "square") == 0
    assert "thresholds from the validation set: Square 0.71\n" in capsys.readouterr().err


def test_a_job_is_not_resumed_with_other_thresholds(plain, picture, tmp_path, capsys):
    path = tmp_path / "a.pth"
    run = command(path, tmp_path / "out", "--threshold", "best", "--no_pictures")
    with_thresholds(plain, path, c1=0.43)
    assert run(picture) == 0 and run(picture, "--resume") == 0
    with_thresholds(plain, path, c1=0.44)
    capsys.readouterr()
    assert run(picture, "--resume") == 1
    assert "was started with other settings, class_thresholds" in capsys.readouterr().err


def test_the_command_without_thresholds_writes_nothing(plain, picture, tmp_path, capsys):
    assert command(plain, tmp_path / "out", "--threshold", "best")(picture) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "has no thresholds" in said and said.count("\n") == 1
    assert not (tmp_path / "out" / "progress.jsonl").exists()


def test_a_word_other_than_best_is_an_error_of_the_command_line(plain, picture, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        command(plain, tmp_path / "out", "--threshold", "bst")(picture)
    assert ended.value.code == 2
    assert "argument --threshold: must be a score such as 0.5, or best, got 'bst'" in capsys.readouterr().err


def test_of_a_panoptic_model_the_things_are_named(tmp_path, picture, capsys):
    path = with_thresholds(write_panoptic(tmp_path / "p.pth"), tmp_path / "a.pth", c1=0.2, c3=0.4, c7=0.9)
    assert command(path, tmp_path / "out", "--threshold", "best", "--no_pictures")(picture) == 0
    assert "validation set: circle 0.2, Square 0.4\n" in capsys.readouterr().err


def test_an_empty_result_names_the_best_score(plain, picture, tmp_path, capsys):
    path = with_thresholds(plain, tmp_path / "a.pth", overall=1.0)
    assert command(path, tmp_path / "out", "--threshold", "best", "--no_pictures")(picture) == 0
    said = capsys.readouterr().err
    assert "no image has an object that reaches the threshold of its class; the best score is" in said
    assert command(path, tmp_path / "out", "--threshold", "0.999", "--no_pictures")(picture) == 0
    assert "--threshold best takes each class's own from the checkpoint" in capsys.readouterr().err
