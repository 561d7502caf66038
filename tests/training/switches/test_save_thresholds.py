"""Thresholds of the classes in checkpoints: training stores them, `--save_thresholds` adds them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import main
from tests.helpers.paths import REPOSITORY
from tests.helpers.runs import flags
from training.start import Start
from util.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)


SHIPPED = REPOSITORY / "weights" / "detr_tiny_shapes.pth"
RUN = """
    --device cpu --num_workers 0 --batch_size 4 --train_sizes 64 --max_size 64 --val_size 64 --no_crop --epochs 3
    --eval_every 2 --checkpoint_every 1 --lr 1e-3 --lr_backbone 1e-3
""".split()


def train(data: Path, out: Path, *more: str) -> Path:
    """Three epochs, of which the second and the third are evaluated, of a detector that finds something."""
    run = [*RUN, "--init_from", str(SHIPPED), "--coco_path", str(data), "--output_dir", str(out)]
    assert main.run([*run, *more]) == 0
    return out


@pytest.fixture(scope="module")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.validation.write_evaluation", lambda *args, **more: None)
        return train(shapes, tmp_path_factory.mktemp("trained"), "--ema", "0.9")


def evaluate(data: Path, checkpoint: Path, *more: str) -> int:
    fixed = ("--device", "cpu", "--num_workers", "0", "--coco_path", str(data))
    return main.run(["--eval", "--resume", str(checkpoint), *fixed, *more])


def test_only_weights_that_were_evaluated_have_thresholds(trained):
    found = {path.name: load_checkpoint(path).get("thresholds") for path in sorted(trained.glob("*.pth"))}
    assert found["checkpoint0000.pth"] is None
    kept = ("checkpoint0001.pth", "checkpoint0002.pth", "checkpoint.pth", "checkpoint_best.pth")
    assert all(found[name] is not None for name in kept)
    assert found["checkpoint.pth"] == found["checkpoint0002.pth"]
    assert [one["id"] for one in found["checkpoint.pth"]["classes"]] == [1, 2, 3]


def test_an_evaluation_of_the_average_repeats_them_and_keeps_all_else(shapes, trained, tmp_path, capsys):
    source, out = trained / "checkpoint.pth", tmp_path / "folder" / "copy.pth"
    assert evaluate(shapes, source, "--save_thresholds", str(out)) == 0
    said = capsys.readouterr().out
    assert "thresholds from the validation set: " in said and f"wrote {out}" in said
    before, after = load_checkpoint(source), load_checkpoint(out)
    assert before.keys() == after.keys() and "model_ema" in after
    assert after["thresholds"] == before["thresholds"]
    assert all(torch.equal(value, after["model"][name]) for name, value in before["model"].items())
    assert all(torch.equal(value, after["model_ema"][name]) for name, value in before["model_ema"].items())
    assert after["rng"][0].keys() == before["rng"][0].keys() and after["args"] == before["args"]


def test_a_checkpoint_gets_them_in_place_and_resumes(shapes, trained, tmp_path, capsys):
    path = tmp_path / "checkpoint.pth"
    content = load_checkpoint(trained / "checkpoint0001.pth")
    expected = content.pop("thresholds")
    save_checkpoint(path, content)
    assert evaluate(shapes, path, "--save_thresholds", str(path)) == 0
    assert load_checkpoint(path)["thresholds"] == expected
    assert main.run([*RUN, "--coco_path", str(shapes), "--resume", str(path), "--output_dir", str(tmp_path)]) == 0
    last = load_checkpoint(path)
    assert last["epoch"] == 2 and last["thresholds"] == load_checkpoint(trained / "checkpoint.pth")["thresholds"]


def test_the_weights_without_their_average_have_thresholds_of_their_own(shapes, trained, tmp_path, capsys):
    source, out = trained / "checkpoint.pth", tmp_path / "raw.pth"
    assert evaluate(shapes, source, "--raw_weights", "--save_thresholds", str(source)) == 1
    assert "would lose" in capsys.readouterr().err
    assert evaluate(shapes, source, "--raw_weights", "--save_thresholds", str(out)) == 0
    raw = load_checkpoint(out)
    assert "model_ema" not in raw and raw["thresholds"] != load_checkpoint(source)["thresholds"]


def test_what_cannot_be_saved_is_said_before_the_evaluation(shapes, trained, tmp_path, capsys):
    assert main.run(flags(shapes, "--save_thresholds", "a.pth")) == 1
    assert "pass it with --eval --resume CHECKPOINT" in capsys.readouterr().err
    assert evaluate(shapes, trained / "checkpoint.pth", "--save_thresholds", str(tmp_path)) == 1
    said = capsys.readouterr()
    assert f"{tmp_path} is a folder" in said.err and "Test:" not in said.out


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("no folder")
    args = main.get_args_parser().parse_args(["--save_thresholds", str(tmp_path / "file" / "a.pth")])
    with pytest.raises(OSError, match="cannot be written .*: pass another --save_thresholds"):
        Start(args, None, {"model": {}}).save_thresholds({"classes": []})
