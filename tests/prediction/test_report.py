"""What `predict.py` prints: progress and a table."""

from __future__ import annotations

import io
import sys

import pytest
import torch
from PIL import Image

from prediction import report as prediction_report
from prediction.report import Progress, Table
from prediction.result import Prediction


def found(*names: str) -> Prediction:
    count = len(names)
    boxes, labels = torch.arange(4.0 * count).reshape(count, 4), torch.arange(count)
    return Prediction(Image.new("RGB", (9, 9)), boxes, torch.linspace(0.9, 0.5, count), labels, list(names), labels)


def test_columns_are_aligned_in_any_script():
    table = Table(["a.jpg", "中文.jpg"], {0: "red", 1: "红色"})
    rows = [
        *table.rows("a.jpg", found("red", "红色")),
        *table.rows("中文.jpg", found("red")),
        *table.rows("a.jpg", found()),
    ]
    assert rows == [
        "image     class      score  x0, y0, x1, y1",
        "a.jpg     red         0.90  0, 1, 2, 3",
        "a.jpg     红色        0.50  4, 5, 6, 7",
        "中文.jpg  red         0.90  0, 1, 2, 3",
        "a.jpg     nothing",
    ]


def test_long_names_are_cut_and_stay_on_one_line():
    rows = list(Table(["x" * 90], {}).rows("a\n" + "x" * 90, found("b")))
    assert rows[1].startswith("a\\nxxx") and "…" in rows[1] and len(rows[1]) < 80


@pytest.mark.parametrize("counts", [False, True])
def test_names_can_neither_forge_rows_nor_fill_the_screen(counts: bool):
    name = "\x1b[2J\nerror: forged\u202e" + "x" * 10**6
    table = Table([name], {1: name}, counts=counts)
    rows = [*table.rows(name, found(name)), *table.totals({1: 1}, {1: 1}).split("\n")]
    assert len(rows) == 4 and max(map(len, rows)) < 300
    assert all(row.isprintable() for row in rows)


def test_counts_name_the_most_frequent_class_first():
    rows = list(Table(["a"], {}, counts=True).rows("a", found("cat", "dog", "dog")))
    assert rows[1] == "a      3 (2 dog, 1 cat)"
    assert list(Table(["a"], {}, counts=True).rows("a", found()))[1] == "a      0"


def test_totals_count_objects_and_images():
    totals = Table([], {3: "cat"}).totals({5: 2, 3: 10}, {5: 1, 3: 4}).splitlines()
    assert [line.split() for line in totals[1:]] == [["cat", "10", "4"], ["class", "5", "2", "1"]]
    assert Table([], {}).totals({}, {}) == "no objects"


def test_progress_goes_to_standard_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(prediction_report, "INTERVAL", 0)
    with Progress(3, before=2) as progress:
        for _ in range(3):
            progress.step(1)
        progress.print("a row")
    said = capsys.readouterr()
    assert said.out == "a row\n"
    lines = said.err.splitlines()
    assert lines[0] == "resuming: 2 images done, 3 to do" and len(lines) == 4
    assert lines[1].startswith("1 of 3 images, ") and "images/s, about 0:00:00 left" in lines[1]
    assert lines[3].startswith("3 of 3 images, ") and lines[3].endswith("images/s")


def test_skipped_images_do_not_count_for_the_speed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(prediction_report.time, "monotonic", iter([0.0, 4.0, 4.0, 4.0, 4.0]).__next__)
    with Progress(4) as progress:
        progress.step(2, skipped=2)
        assert progress._speed() == ""
        progress.step(2)
    assert capsys.readouterr().err == "4 of 4 images, 0.5 images/s\n"


def test_a_terminal_gets_a_bar_and_rows_above_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress(2) as progress:
        progress.print("a row")
        progress.step(2)
    assert "0/2" in screen.getvalue() and "2 of 2 images" in screen.getvalue()
    assert capsys.readouterr().out == "a row\n" and progress.bar.n == 2
