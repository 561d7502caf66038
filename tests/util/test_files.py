"""Writing files, conversion to plain data, and checks of numbers."""

import argparse
import errno
import hashlib
import io
import json
import os
import time
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.processes import leave_behind
from util import files
from util.files import (
    append_json_line,
    is_count,
    is_number,
    plain,
    remove_leftovers,
    sha256_of,
    write_atomically,
    write_json,
)


def test_the_content_is_on_disk_before_the_renaming_and_then_the_folder(tmp_path, monkeypatch):
    done, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append((os.fstat(file).st_ino, sync(file))[0]))
    monkeypatch.setattr(os, "replace", lambda *paths: done.append(replace(*paths)))
    write_atomically(tmp_path / "file", lambda file: file.write(b"new"))
    folder = [tmp_path.stat().st_ino] if os.name == "posix" else []
    assert done == [(tmp_path / "file").stat().st_ino, None, *folder]


def test_the_file_appears_complete_with_folders_created_and_links_kept(tmp_path):
    seen = []

    def write(file):
        file.write(b"new")
        seen.append((tmp_path / "deep" / "file").exists())

    write_atomically(tmp_path / "deep" / "file", write)
    assert seen == [False] and (tmp_path / "deep" / "file").read_bytes() == b"new"

    (tmp_path / "link").symlink_to(tmp_path / "deep" / "file")
    write_atomically(tmp_path / "link", lambda file: file.write(b"newer"))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "deep" / "file").read_bytes() == b"newer"


def test_the_checksum_is_of_all_bytes_of_a_file(tmp_path):
    content = bytes(range(251)) * 9000  # more than is read at once
    (tmp_path / "a.bin").write_bytes(content)
    assert sha256_of(tmp_path / "a.bin") == hashlib.sha256(content).hexdigest()
    with pytest.raises(OSError):
        sha256_of(tmp_path / "b.bin")


def test_the_longest_name_that_a_file_may_have_can_be_written(tmp_path):
    for name in ("x" * 255, "图" * 85):
        write_atomically(tmp_path / name, lambda file: file.write(b"content"))
        assert (tmp_path / name).read_bytes() == b"content"


def test_only_temporary_files_whose_writer_was_killed_are_removed(tmp_path):
    leave_behind(tmp_path / "left")
    (left,) = tmp_path.iterdir()
    others = [tmp_path / name for name in (".notes.tmp", ".a.png.77.tmp", f"{left.name}.tmp", left.name[1:])]
    for other in others:
        other.write_bytes(b"another program's")

    def during_a_write(file):
        assert remove_leftovers(tmp_path.iterdir()) == 1 and not left.exists()
        file.write(b"complete")

    write_atomically(tmp_path / "new", during_a_write)
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "new"])
    assert (tmp_path / "new").read_bytes() == b"complete"


def test_a_temporary_file_of_another_machine_stays_for_a_day(tmp_path, monkeypatch):
    leave_behind(tmp_path / "left")
    (left,) = tmp_path.iterdir()
    monkeypatch.setattr(files.socket, "gethostname", lambda: "another")
    assert remove_leftovers([left]) == 0 and left.exists()
    os.utime(left, (time.time() - 2 * 86400,) * 2)
    assert remove_leftovers([left]) == 1 and not left.exists()


def test_json_is_written_from_plain_data(tmp_path):
    write_json(tmp_path / "a.json", {"stats": torch.tensor([0.5]), "path": tmp_path, "ids": np.array([1, 2])})
    assert (tmp_path / "a.json").read_text() == f'{{"stats": [0.5], "path": "{tmp_path}", "ids": [1, 2]}}\n'


def test_plain_keeps_plain_data_and_converts_the_rest():
    weight = nn.Parameter(torch.ones(2))
    converted = plain(
        {
            "n": argparse.Namespace(a=np.float32(0.5), device=torch.device("cpu")),
            "t": (1, [None, True]),
            "s": {3},
            "c": Counter([1, 1]),
            "w": weight,
            "scalar": np.array(2.0),
        }
    )
    assert converted["n"] == {"a": 0.5, "device": "cpu"} and type(converted["n"]["a"]) is float
    assert converted["t"] == (1, [None, True]) and converted["s"] == [3]
    assert converted["c"] == Counter({1: 2}) and type(converted["c"]) is Counter
    assert type(converted["w"]) is torch.Tensor and not converted["w"].requires_grad
    assert converted["w"].data_ptr() == weight.data_ptr()
    assert converted["scalar"].shape == ()


def test_log_lines_are_appended_as_plain_json(tmp_path):
    log = tmp_path / "log.txt"
    append_json_line(log, {"epoch": 0, "test_coco_eval_bbox": torch.tensor([0.5, 0.25]), "folder": tmp_path})
    append_json_line(log, {"epoch": 1})
    first, second = map(json.loads, log.read_text().splitlines())
    assert first == {"epoch": 0, "test_coco_eval_bbox": [0.5, 0.25], "folder": str(tmp_path)}
    assert second == {"epoch": 1}


def test_an_unfinished_line_does_not_swallow_the_next(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text('{"epoch": 0}\n{"epo')
    append_json_line(log, {"epoch": 1})
    assert log.read_text() == '{"epoch": 0}\n{"epo\n{"epoch": 1}\n'


def test_a_line_that_does_not_fit_on_the_disk_leaves_no_part_behind(tmp_path, monkeypatch):
    log = tmp_path / "log.txt"
    append_json_line(log, {"epoch": 0})
    before = log.read_bytes()

    class Full(io.FileIO):
        room = 7

        def write(self, data):
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written, self.room = super().write(data[: self.room]), 0
            return written

    with monkeypatch.context() as patch:
        patch.setattr(files, "open", lambda path, mode, **_: Full(path, mode), raising=False)
        with pytest.raises(OSError, match="No space left"):
            append_json_line(log, {"epoch": 1})
    assert log.read_bytes() == before
    append_json_line(log, {"epoch": 1})
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [0, 1]


def test_counts_are_whole_numbers_that_float64_holds_exactly():
    assert all(map(is_count, (0, 1, 2**53)))
    assert not any(map(is_count, (-1, 2**53 + 1, True, 1.0, "1", None)))


def test_numbers_are_ints_and_floats_but_not_flags():
    assert all(map(is_number, (0, -1.5, float("nan"), float("inf"))))
    assert not any(map(is_number, (True, "1", None, [1])))
