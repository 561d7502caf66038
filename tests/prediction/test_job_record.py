"""`progress.jsonl` read again: whole, cut off, damaged, or made by someone else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from prediction.job_record import is_unchanged, read_record, remove_files, state_of

SETTINGS = {"settings": {"threshold": 0.5}}


def record(name: str, **more) -> dict:
    result = {"category_id": 1, "bbox": [0.0, 0.0, 2.0, 3.0], "area": 6.0, "score": 0.5}
    return {"name": name, "file": f"/in/{name}", "width": 4, "height": 5, "results": [result]} | more


def write(folder: Path, *lines: object, end: str = "\n") -> None:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "progress.jsonl").write_text(text + end)


def test_a_record_names_what_is_done_and_all_files(tmp_path: Path):
    begun = {"begun": "b.png", "files": ["pictures/b.png", "crops/cat/b-1.png"]}
    write(tmp_path, SETTINGS, record("a.png", files={"pictures/a.png": [1, 2, 3, 4]}), begun)
    read = read_record(tmp_path)
    assert read.settings == SETTINGS["settings"] and list(read.done) == ["a.png"] and read.damaged == 0
    assert read.files == {"pictures/a.png", "pictures/b.png", "crops/cat/b-1.png"}


def test_an_image_begun_again_is_not_done(tmp_path: Path):
    write(tmp_path, SETTINGS, record("a.png"), {"begun": "a.png", "files": []})
    assert not read_record(tmp_path).done


def test_there_may_be_no_record(tmp_path: Path):
    assert read_record(tmp_path) is None


def test_an_unfinished_last_line_is_dropped_without_a_word(tmp_path: Path):
    write(tmp_path, SETTINGS, record("a.png"), '{"name": "b.png", "fi', end="")
    read = read_record(tmp_path)
    assert list(read.done) == ["a.png"] and read.damaged == 0


NESTED = "[" * 100_000
BAD = {
    "no JSON": "{",
    "a list": "[]",
    "nested": NESTED,
    "no name": json.dumps({"file": "x"}),
    "a name that is none": json.dumps(record("b.png") | {"name": 5}),
    "no results": json.dumps(record("b.png") | {"results": None}),
    "a result that is none": json.dumps(record("b.png") | {"results": [5]}),
    "a box of three": json.dumps(record("b.png") | {"results": [{"category_id": 1, "bbox": [1, 2, 3], "score": 1}]}),
    "not a number": json.dumps(record("b.png")).replace("0.5", "NaN"),
    "no category": json.dumps(record("b.png")).replace("category_id", "x"),
    "a width that is none": json.dumps(record("b.png", width="4")),
    "files that are none": json.dumps(record("b.png", files=["pictures/b.png"])),
    "a file elsewhere": json.dumps(record("b.png", files={"pictures/../../x": [1, 2, 3, 4]})),
    "a score that is none": json.dumps(record("b.png", best_score="high")),
    "segments without a map": json.dumps(record("b.png", segments=[])),
    "settings again": json.dumps(SETTINGS),
    "bytes": "\udcff\udcfe",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_damaged_line_costs_one_image(tmp_path: Path, bad: str):
    lines = [json.dumps(SETTINGS), json.dumps(record("a.png")), bad, json.dumps(record("c.png")), ""]
    (tmp_path / "progress.jsonl").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    read = read_record(tmp_path)
    assert list(read.done) == ["a.png", "c.png"] and read.damaged == 1


def test_without_settings_the_images_are_known_as_ours(tmp_path: Path):
    write(tmp_path, "damaged", record("a.png", files={"pictures/a.png": [1, 2, 3, 4]}))
    read = read_record(tmp_path)
    assert read.settings is None and read.files == {"pictures/a.png"} and read.damaged == 1


@pytest.mark.parametrize("content", ["the user's notes\n", '{"epoch": 1}\n', "[1, 2]\n"])
def test_a_file_of_another_origin_is_refused(tmp_path: Path, content: str):
    (tmp_path / "progress.jsonl").write_text(content)
    with pytest.raises(ValueError, match=r"progress\.jsonl is damaged or not from predict\.py"):
        read_record(tmp_path)
    assert (tmp_path / "progress.jsonl").read_text() == content


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "progress.jsonl")
    with pytest.raises(ValueError, match="is not a file"):
        read_record(tmp_path)


def test_records_of_earlier_versions_name_their_files_by_the_images(tmp_path: Path):
    (tmp_path / "crops/cat").mkdir(parents=True)
    write(tmp_path, SETTINGS, record("in/a.bmp"))
    assert {"pictures/in/a.bmp.png", "panoptic/in/a.bmp.png", "crops/cat/in/a.bmp-1.png"} <= read_record(tmp_path).files


def test_only_files_in_the_folders_of_a_job_are_removed(tmp_path: Path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    kept = [out / "notes.txt", out / "pictures/own.png", elsewhere / "a.png", tmp_path / "a.png"]
    for path in (*kept, out / "pictures/in/a.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (out / "crops").symlink_to(elsewhere)
    outside = ["notes.txt", "../a.png", "pictures/../../a.png", str(tmp_path / "a.png"), "crops/a.png", "pictures"]
    assert remove_files(out, [*outside, "pictures/in/a.png", "pictures/gone.png"]) == 1
    assert all(path.exists() for path in kept)
    assert not (out / "pictures/in").exists() and (out / "pictures").exists()


def test_a_file_is_known_by_its_content_when_its_times_differ(tmp_path: Path):
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    state = state_of(file)
    assert is_unchanged(file, state)
    os.utime(file, ns=(5, 5))
    assert is_unchanged(file, state)
    shutil.copy(file, tmp_path / "copy")
    assert is_unchanged(tmp_path / "copy", state)
    file.write_bytes(b"12346")
    os.utime(file, ns=(state[1], state[1]))  # the same size and time of modification
    assert not is_unchanged(file, state)
    file.unlink()
    assert not is_unchanged(file, state)
    assert not any(is_unchanged(tmp_path / "copy", wrong) for wrong in (None, 5, [], [5], {}, ["a"] * 4))
