"""A data set's folder: nothing stops at the first fault, whatever it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datasets.formats.faults import leave_out
from datasets.formats.part import FoundData, Part
from tests.tools.checking.planted import FACTS, Planted
from tools.checking.data_set import captured_warnings, check, read_parts
from tools.checking.findings import Finding, Level, in_order, with_last_advice
from util.logging import get_logger


def test_the_built_in_shapes_are_clean(shapes):
    checked = check(shapes, FACTS, 0)
    assert checked.findings == [] and checked.complete
    assert [part.name for part in checked.parts] == ["train", "val"]


def test_a_part_that_cannot_be_read_does_not_hide_the_other(tmp_path):
    data = Planted(tmp_path)
    data.val["annotations"][0]["bbox"] = [5, 5, 0, 9]
    folder = data.write()
    file = folder / "annotations/instances_train2017.json"
    file.write_bytes(file.read_bytes()[:-40])
    checked = check(folder, FACTS, 0)
    assert not checked.complete and [part.name for part in checked.parts] == ["val"]
    first = checked.findings[0]
    assert (first.kind, first.level) == ("annotations-unreadable", Level.STOPS)
    assert "may be truncated" in first.places[0].detail and first.places[0].part == "train"
    assert {found.kind for found in checked.findings} == {"annotations-unreadable", "box-empty"}


def test_all_faults_of_one_set_are_found_together(tmp_path):
    data = Planted(tmp_path)
    data.train["images"].append({"id": "x"})
    data.train["annotations"] += [{"id": 98}, {"id": 99, "image_id": 1, "category_id": 44, "bbox": [1, 2, 3, 4]}]
    data.picture(1).unlink()
    data.picture(2).write_bytes(b"\xff\xd8\xff\xe0 no picture")
    data.train["annotations"][0]["bbox"] = [60, 5, 30, 9]
    found = data.check().findings
    assert {"entry-image", "entry-annotation", "picture-missing", "picture-unreadable", "box-outside"} == {
        one.kind for one in found
    }
    assert next(one for one in found if one.kind == "entry-annotation").count == 2
    assert found == in_order(reversed(found))


def read_with(reader) -> tuple[list, dict]:
    part = Part(Path("images"), Path("labels"), reader)
    parts, findings = read_parts(FoundData("made", Path("."), {"train": part}, Path(".")))
    return parts, {found.kind: found for found in findings}


def test_label_files_that_cannot_be_used_are_left_out_and_named():
    def reader():
        leave_out(Path("labels/b.txt"), ValueError("label file labels/b.txt line 3 has 6 numbers"))
        leave_out(Path("labels/c.txt"), OSError("label file labels/c.txt cannot be read"))
        return {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}

    parts, found = read_with(reader)
    assert len(parts[0].images) == 1
    places = found["annotation-file-unreadable"].places
    assert [(place.file, place.detail[-9:]) for place in places] == [
        ("labels/b.txt", "6 numbers"),
        ("labels/c.txt", "t be read"),
    ]
    assert found["annotation-file-unreadable"].level == Level.STOPS


@pytest.mark.parametrize(
    ("sentence", "level"),
    [
        ("2 polygons became boxes", Level.NOTE),
        ("3 files state another size: the boxes are wrong", Level.HURTS),
        ("3 (a.txt, …) of the label files have no image: they are left out", Level.HURTS),
    ],
)
def test_what_a_reader_logs_is_a_finding_and_not_printed(sentence, level, capsys):
    def reader():
        get_logger().warning(sentence)
        return {"images": [], "annotations": [], "categories": []}

    _, found = read_with(reader)
    assert found["reading"].level == level and found["reading"].places[0].detail == sentence
    assert capsys.readouterr().out == ""


def test_the_logger_prints_again_afterwards(capsys):
    with captured_warnings() as collected:
        get_logger().warning("inside")
    get_logger().warning("outside")
    assert collected == ["inside"] and capsys.readouterr().out == "outside\n"


def test_a_folder_without_data_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no data set is recognised"):
        check(tmp_path, FACTS, 0)


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may read everything")
def test_a_picture_without_permission_is_a_finding(tmp_path):
    data = Planted(tmp_path)
    data.picture().chmod(0)
    (found,) = data.check().findings
    assert found.kind == "picture-unreadable" and "Permission" in found.places[0].detail


def test_findings_of_one_kind_stay_together_and_say_once_what_to_do():
    def made(kind, harm, advice="Do this."):
        return Finding(kind, Level.HURTS, f"{kind} {harm}", advice, harm=harm)

    findings = in_order([made("a", 0.1), made("b", 0.5), made("a", 0.9), made("c", 0.3, "Do that."), made("c", 0.2)])
    assert [found.title for found in findings] == ["a 0.9", "a 0.1", "b 0.5", "c 0.3", "c 0.2"]
    assert [advice for _, advice in with_last_advice(findings)] == ["", "Do this.", "Do this.", "Do that.", "Do this."]


def test_annotations_of_an_entry_that_cannot_be_used_are_no_finding_of_their_own(tmp_path):
    data = Planted(tmp_path)
    data.train["images"][0]["width"] = -5
    assert {found.kind for found in data.check().findings} == {"entry-image", "picture-not-listed"}
