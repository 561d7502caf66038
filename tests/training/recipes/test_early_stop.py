"""The end of a run whose score no longer rises, uninterrupted and resumed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import main
from tests.helpers.runs import flags, signal_at
from tests.training.test_resume import assert_same_run, log_of
from util.checkpoint import load_checkpoint

SCORES = (0.1, 0.3, 0.2, 0.3, 0.25, 0.4)  # of the evaluations; the third and the fourth are not better than the second


@pytest.fixture(autouse=True)
def known_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)
    restart_scores(monkeypatch)


def restart_scores(monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...] = SCORES) -> None:
    """Evaluations from now on have these scores, in this order; one that is cut off has none."""
    left = iter(scores)
    monkeypatch.setattr("training.run.score", lambda stats: next(left))


def train(data: Path, out: Path, *more: str) -> int:
    return main.run(flags(data, "--epochs", "6", "--output_dir", str(out), *more))


def epochs_of(out: Path) -> list[int]:
    return [line["epoch"] for line in log_of(out)]


@pytest.mark.parametrize(("patience", "last"), [(0, 5), (2, 3)])
def test_the_run_ends_after_so_many_evaluations_without_a_better_one(shapes, tmp_path, capsys, patience, last):
    assert train(shapes, tmp_path, "--early_stop", str(patience)) == 0
    assert epochs_of(tmp_path) == list(range(last + 1))
    said = f"--early_stop {patience}: the run ends after epoch {last}, since {patience} evaluation"
    assert (said in capsys.readouterr().out) == (last < 5)
    assert load_checkpoint(tmp_path / "checkpoint_best.pth")["epoch"] == (1 if last < 5 else 5)


def test_epochs_without_an_evaluation_do_not_count(shapes, tmp_path):
    assert train(shapes, tmp_path, "--early_stop", "1", "--eval_every", "2", "--epochs", "4") == 0
    assert epochs_of(tmp_path) == list(range(4))  # scores 0.1, 0.3


@pytest.mark.parametrize("batch", [11, 13])
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(shapes, tmp_path, monkeypatch, batch):
    """An epoch has two batches of training and two of evaluation: 11 is the third evaluation's."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train(shapes, whole, "--early_stop", "2") == 0
    restart_scores(monkeypatch)
    with monkeypatch.context() as interrupted:
        signal_at(interrupted, batch, signal.SIGTERM)
        assert train(shapes, halves, "--early_stop", "2") == 0
    assert epochs_of(halves) == list(range((batch - 1) // 4))
    assert train(shapes, halves, "--resume", "auto") == 0  # --early_stop comes from the checkpoint
    assert_same_run(whole, halves)
    assert load_checkpoint(halves / "checkpoint.pth")["waited"] == 2


def test_a_run_that_has_ended_early_goes_on_only_with_more_patience(shapes, tmp_path, monkeypatch, capsys):
    assert train(shapes, tmp_path, "--early_stop", "2") == 0
    assert train(shapes, tmp_path, "--resume", "auto") == 1
    said = capsys.readouterr().err
    assert "has ended early, after 2 evaluations without a better score, and --early_stop is 2" in said
    restart_scores(monkeypatch, SCORES[4:])
    assert train(shapes, tmp_path, "--resume", "auto", "--early_stop", "3") == 0
    assert epochs_of(tmp_path) == list(range(5))
