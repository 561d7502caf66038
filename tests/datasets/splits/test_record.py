"""The record of a split: written, read, and refused where it is something else."""

import json

import pytest

from datasets.splits.record import SPLIT, Split, read_split
from util.files import write_json

RECORD = Split(0.15, "near", ["a.jpg", "ä #1.jpg"], ["b.jpg"], ["c.jpg"], {"cat": {"train": [2, 3], "val": [1, 1]}})


def test_a_record_is_read_from_its_file_and_from_its_folder(tmp_path):
    write_json(tmp_path / SPLIT, RECORD.plain())
    assert read_split(tmp_path) == read_split(tmp_path / SPLIT) == RECORD
    assert RECORD.sides == {"a.jpg": "train", "ä #1.jpg": "train", "b.jpg": "val", "c.jpg": "left_out"}


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--val_split: there is no .*split\.json"):
        read_split(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"val": "b.jpg"}, {"train": [1]}, {"val_share": 1.5}, {"val_share": "x"}, {"val_groups": "all"}, {"left_out": 3}],
)
def test_another_form_is_refused(tmp_path, change):
    (tmp_path / SPLIT).write_text(json.dumps(RECORD.plain() | change))
    with pytest.raises(ValueError, match="is not the record of a split"):
        read_split(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_what_is_not_json_is_refused(tmp_path, content):
    (tmp_path / SPLIT).write_bytes(content)
    with pytest.raises(ValueError, match="is not the record of a split"):
        read_split(tmp_path)
