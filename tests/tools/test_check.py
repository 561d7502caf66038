"""The command `python -m tools.check`: exit codes, the screen, and the report."""

from __future__ import annotations

import json
import re

import pytest

from tests.helpers.predict_parts import write_detector
from tests.tools.checking.planted import Planted
from tools.check import run


@pytest.fixture
def data(tmp_path):
    return Planted(tmp_path / "data")


def checked(data: Planted, *more: str) -> int:
    return run([str(data.write()), "--num_workers", "0", *more])


def test_a_clean_set_exits_with_0(data, capsys):
    assert checked(data) == 0
    out = capsys.readouterr().out
    assert "train 8 images, 16 objects" in out and "the data look clean" in out


def test_notes_alone_exit_with_0(data, capsys):
    data.train["annotations"] = data.train["annotations"][2:]
    assert checked(data) == 0
    assert "1 note" in capsys.readouterr().out


def test_findings_that_hurt_exit_with_1_the_worst_first(data, capsys):
    data.train["annotations"] = data.train["annotations"][2:]
    data.train["annotations"][3]["bbox"] = [60, 5, 30, 9]
    data.picture(4).unlink()
    assert checked(data) == 1
    out = capsys.readouterr().out
    places = [
        out.index(words) for words in ("STOPS  1 of 8", "HURTS  1 of 14", "note   1 of 8", "1 finding that stops")
    ]
    assert places == sorted(places)
    assert "train2017/train_e.png: no such file" in out and "→" in out


def test_what_cannot_be_read_exits_with_2(data, tmp_path, capsys):
    assert run([str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert run([str(data.write()), "--checkpoint", str(tmp_path / "no.pth")]) == 2
    assert "no.pth" in capsys.readouterr().err
    (data.folder / "annotations/instances_val2017.json").write_text('{"images": [')
    assert run([str(data.folder), "--num_workers", "0", "--out", str(tmp_path / "out")]) == 2
    assert "instances_val2017.json" in capsys.readouterr().out
    assert (tmp_path / "out/report.html").exists()


@pytest.mark.parametrize("flags", [("--num_queries", "0"), ("--num_workers", "-1"), ("--out", "report.html")])
def test_a_flag_that_cannot_be_used_is_an_error(data, flags, capsys):
    assert checked(data, *flags) == 2
    assert flags[0] in capsys.readouterr().err


def test_the_checkpoints_queries_sizes_and_classes_count(data, tmp_path, capsys):
    names = [{"id": 1, "name": "cat"}, {"id": 5, "name": "traffic light"}]
    file = str(write_detector(tmp_path / "run.pth", "--num_queries", "1", "--val_size", "32", categories=names))
    assert checked(data, "--checkpoint", file) == 1
    assert "more objects than the model has queries (1)" in capsys.readouterr().out
    assert checked(data, "--checkpoint", file, "--num_queries", "9") == 0
    data.train["categories"][1]["name"] = "bus"
    assert checked(data, "--checkpoint", file, "--num_queries", "9") == 1
    assert "'traffic light' in the checkpoint, 'bus' here" in capsys.readouterr().out


NASTY = "<script>alert(1)</script>\x1b[31m\u202e"


def test_the_report_is_one_file_that_shows_everything_escaped(data, tmp_path, capsys):
    for content in data.contents.values():
        content["categories"][0]["name"] = NASTY
    data.train["annotations"].append(data.train["annotations"][0] | {"id": 99, "category_id": 5})
    data.train["images"][1]["file_name"] = "no<b>such.png"
    data.train["images"][2]["file_name"] = "../train2017/" + data.train["images"][2]["file_name"]
    assert checked(data, "--out", str(tmp_path / "out")) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out and "\\x1b" in out
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<b>such" not in page and "\x1b" not in page and "&lt;script&gt;" in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)  # nothing from elsewhere
    for part in (
        "Findings, the worst first",
        "The worst pictures",
        "Random pictures",
        "Objects of each class",
        "queries",
    ):
        assert part in page
    assert "pictures: short side in the file: 48 pixels, all of them" in page  # no chart of one bar
    assert page.count("data:image/jpeg") >= 11  # all pictures that can be read, and one of the worst
    record = json.loads((tmp_path / "out/findings.json").read_text())
    kinds = {found["kind"]: found for found in record["findings"]}
    assert kinds["box-twins"]["places"][0]["annotation"] == 99 and kinds["box-twins"]["level"] == "hurts"
    assert kinds["picture-missing"]["places"] == [
        {"part": "train", "file": "train2017/no<b>such.png", "annotation": None, "detail": "no such file"}
    ]


def test_the_boxes_at_fault_are_red(data, tmp_path, monkeypatch):
    from tools.checking import sheet

    drawn = []
    usual = sheet.draw_boxes
    monkeypatch.setattr(sheet, "draw_boxes", lambda *a, **k: (drawn.append(a), usual(*a, **k))[1])
    data.train["annotations"][1]["bbox"] = [60, 5, 30, 9]
    assert checked(data, "--out", str(tmp_path / "out")) == 1
    _, boxes, names, colors = drawn[0]
    assert colors[0] == sheet.FAULTY and sheet.FAULTY not in colors[1:]
    assert boxes[0].tolist() == [60, 5, 90, 14] and names == ["traffic light", "cat"]
    assert all(sheet.FAULTY not in call[3] for call in drawn[1:])


def test_a_duplicate_is_shown_beside_the_other_picture(data, tmp_path):
    data.picture(2, "val").write_bytes(data.picture(3).read_bytes())
    assert checked(data, "--out", str(tmp_path / "out")) == 1
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert page.index("the same file as train2017/train_d.png</figcaption>") < page.index(
        "the other picture</figcaption>"
    )


def test_ctrl_c_is_no_traceback(data, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.check.check", interrupt)
    assert checked(data) == 130
    assert "stopped" in capsys.readouterr().err
