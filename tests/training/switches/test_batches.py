"""Runs with switches that shape batches or save memory: they go on to the bit, and follow the checkpoint."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import engine
import main
from tests.helpers.runs import flags, signal_at
from tools.reliability.tiny_run import differences
from util.checkpoint import load_checkpoint

RUN = ["--batch_size", "2", "--dropout", "0.1", "--epochs", "2"]  # four steps an epoch


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without reports, which take longer than the trainings here."""
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)


def train(data: Path, out: Path, *more: str) -> int:
    return main.run(flags(data, *RUN, "--output_dir", str(out), *more))


@pytest.fixture
def padded_sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(height, width) of every batch, as the loops see it."""
    seen = []
    padded_size = engine.padded_size
    monkeypatch.setattr(engine, "padded_size", lambda samples: seen.append(padded_size(samples)) or seen[-1])
    return seen


@pytest.mark.parametrize("switch", ["--checkpoint_activations", "--pad_multiple 48", "--group_by_aspect"])
def test_a_stop_goes_on_to_the_bit(shapes, tmp_path, monkeypatch, switch):
    assert train(shapes, tmp_path / "whole", *switch.split()) == 0
    with monkeypatch.context() as patch:
        signal_at(patch, 3, signal.SIGTERM)
        assert train(shapes, tmp_path / "halves", *switch.split()) == 0
    assert load_checkpoint(tmp_path / "halves" / "checkpoint.pth")["step"] == 3
    assert train(shapes, tmp_path / "halves", *switch.split(), "--resume", "auto") == 0
    assert differences(tmp_path / "halves", tmp_path / "whole") == []


def test_grouping_that_begins_inside_an_epoch_is_named_and_begins_it_anew(shapes, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        signal_at(patch, 3, signal.SIGTERM)
        assert train(shapes, tmp_path) == 0
    assert train(shapes, tmp_path, "--group_by_aspect", "--resume", "auto", "--epochs", "1") == 0
    said = capsys.readouterr().out
    assert "--group_by_aspect is on, it was off" in said and "from its beginning" in said


def test_recomputed_activations_give_the_plain_run(shapes, tmp_path):
    assert train(shapes, tmp_path / "plain", "--epochs", "1") == 0
    assert train(shapes, tmp_path / "recomputed", "--epochs", "1", "--checkpoint_activations") == 0
    assert differences(tmp_path / "recomputed", tmp_path / "plain") == []


def test_an_evaluation_pads_as_the_training_did(shapes, tmp_path, padded_sizes):
    assert train(shapes, tmp_path / "run", "--pad_multiple", "48", "--epochs", "1") == 0
    assert set(padded_sizes) == {(96, 96)}  # of images of 64 pixels
    padded_sizes.clear()
    checkpoint = str(tmp_path / "run" / "checkpoint.pth")
    assert main.run(flags(shapes, *RUN, "--eval", "--resume", checkpoint)) == 0
    assert set(padded_sizes) == {(96, 96)}


def test_an_evaluation_without_padding_stays_without(shapes, tmp_path, padded_sizes):
    more = ["--pad_multiple", "48", "--eval_no_pad", "--epochs", "1"]
    assert train(shapes, tmp_path, *more) == 0
    assert set(padded_sizes) == {(96, 96), (64, 64)}
