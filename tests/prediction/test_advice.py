"""What is said when next to nothing is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prediction.advice import on_threshold


def record(name: str, best: float, count: int = 0) -> dict:
    return {"name": name, "best_score": best, "results": [{}] * count}


def test_nothing_found_names_the_best_score_and_a_threshold_below(tmp_path: Path):
    said = on_threshold([record("a.png", 0.03), record("b.png", 0.08)], 0.7, tmp_path / "checkpoint.pth")
    assert "no image has an object with a score of 0.7 or more" in said
    assert "the best score is 0.08 (b.png)" in said and "--threshold 0.05" in said and "eval/f1.json" in said


@pytest.mark.parametrize(("best", "threshold"), [(0.49, "0.2"), (0.3, "0.2"), (0.0015, "0.001")])
def test_the_threshold_that_is_named_lies_below_the_best_score(best: float, threshold: str):
    assert f"--threshold {threshold}" in on_threshold([record("a", best)], 0.5, "c.pth")


def test_the_best_threshold_of_the_training_is_read_from_its_report(tmp_path: Path):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval/f1.json").write_text(json.dumps({"overall": {"best": {"threshold": 0.31, "f1": 0.9}}}))
    said = on_threshold([record("a", 0.4)], 0.5, tmp_path / "checkpoint_best.pth")
    assert "--threshold 0.31" in said and str(tmp_path / "eval/f1.json") in said


@pytest.mark.parametrize(
    "content", ["", "[]", '{"overall": {"best": null}}', '{"overall": {"best": {"threshold": "x"}}}']
)
def test_a_report_that_cannot_be_used_is_passed_over(tmp_path: Path, content: str):
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval/f1.json").write_text(content)
    assert "training writes the threshold" in on_threshold([record("a", 0.4)], 0.5, tmp_path / "c.pth")


def test_no_threshold_is_named_where_nothing_is_there():
    assert "--threshold" not in on_threshold([record("a", 0.0001)], 0.5, "c.pth")


def test_hardly_anything_found_is_said_too():
    records = [record("a", 0.8, 2), *(record(f"{index}", 0.01 * index) for index in range(1, 12))]
    said = on_threshold(records, 0.5, "c.pth")
    assert "only 1 of 12 images have an object" in said and "the best score of the others is 0.11 (11)" in said


@pytest.mark.parametrize(
    "records",
    [[], [record("a", 0.8, 1)], [record("a", 0.8, 1), record("b", 0.1)], [record("a", 0.0)], [record("a", 0.9)]],
)
def test_otherwise_nothing_is_said(records: list[dict]):
    assert on_threshold(records, 0.5, "c.pth") is None
