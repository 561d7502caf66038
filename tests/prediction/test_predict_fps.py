"""`predict.py CHECKPOINT --fps`, and which flags go together."""

from __future__ import annotations

from pathlib import Path

import pytest

import predict
from prediction import speed
from prediction.arguments import parse
from tests.helpers.predict_parts import write_detector, write_picture


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detector(tmp_path_factory.mktemp("detector") / "checkpoint.pth")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WARM_UP", "MIN_PASSES", "MAX_PASSES"):
        monkeypatch.setattr(speed, name, 1)


@pytest.mark.parametrize(
    ("flags", "measured"),
    [("", "1 x 48 x 64 pixels"), ("--size 70 50 --batch_size 3", "3 x 70 x 50 pixels")],  # of 640 x 480; as asked for
)
def test_the_speed_is_printed(quick, checkpoint: Path, capsys, flags: str, measured: str):
    assert predict.run([str(checkpoint), "--fps", "--device", "cpu", *flags.split()]) == 0
    out = capsys.readouterr().out
    parameters = sum(p.numel() for p in predict.Predictor(checkpoint, "cpu").model.parameters())
    assert measured in out and f"{parameters:,} parameters on cpu" in out
    starts = [line.split()[0] for line in out.splitlines()[-4:]]
    assert starts == ["whole", "backbone", "transformer", "throughput"]


def test_what_cannot_be_measured_is_one_sentence(checkpoint: Path, tmp_path: Path, capsys):
    assert predict.run([str(checkpoint), "--fps", "--device", "cpu", "--size", "0", "50"]) == 1
    assert capsys.readouterr().err.startswith("error: batch size, height and width must be at least 1, got 1 x 0 x 50")
    learned = write_detector(tmp_path / "learned.pth", "--position_embedding", "learned")
    assert predict.run([str(learned), "--fps", "--device", "cpu", "--size", "64", "3000"]) == 1
    said = capsys.readouterr().err
    assert "learned positions end at 50 x 50" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        ("", "IMAGES and --out FOLDER are required"),
        ("a.png", "IMAGES and --out FOLDER are required"),
        ("--out found", "IMAGES and --out FOLDER are required"),
        ("a.png --fps", "omit IMAGES and --out"),
        ("--fps --out found", "omit IMAGES and --out"),
        ("a.png --out found --size 9 9", "--size needs --fps"),
        ("--data cells --fps", "omit IMAGES and --out"),
        ("a.png --data cells --out found", "omit IMAGES and --ann"),
        ("--data cells --ann a.json --out found", "omit IMAGES and --ann"),
        ("a.png --part val --out found", "pass --data too"),
    ],
)
def test_flags_that_do_not_go_together_are_rejected(capsys, flags: str, fault: str):
    with pytest.raises(SystemExit) as stopped:
        parse(["detector.pth", *flags.split()])
    assert stopped.value.code == 2 and fault in capsys.readouterr().err


def test_flags_may_come_in_any_order(checkpoint: Path, tmp_path: Path):
    picture = write_picture(tmp_path / "a.png")
    argv = ["--device", "cpu", checkpoint, "--out", tmp_path / "out", picture, "--threshold", "0"]
    assert predict.run([str(part) for part in argv]) == 0
    assert (tmp_path / "out/pictures/a.png").exists()
