"""The message about missing files says under which name they are there."""

import unicodedata

import pytest

from datasets.annotations import file_names
from datasets.annotations.file_names import hint_at
from datasets.image_reader import ImageReader

NFC = unicodedata.normalize("NFC", "écran.png")
NFD = unicodedata.normalize("NFD", "écran.png")


@pytest.mark.parametrize(
    ("on_disk", "listed", "reasons"),
    [
        ("1.png", "images\\1.png", "backslashes, other folders"),
        ("a/1.png", "a\\1.png", "backslashes"),
        ("1.png", "images/1.png", "other folders"),
        ("1.png", "/data/set/images/1.png", "other folders"),
        ("1.png", "C:\\data\\1.png", "backslashes, other folders"),
        ("1.png", "../../media/upload/4/1.png", "other folders"),
        ("a/b/1.png", "1.png", "other folders"),
        ("a/1.png", "train/a/1.png", "other folders"),
        ("écran 1.png", "%C3%A9cran%201.png", "%-escapes"),
        (NFD, NFC, "another Unicode form of the accents"),
        (NFC, NFD, "another Unicode form of the accents"),
        ("1.jpg", "1.JPG", "letter case"),
        ("A/1.jpg", "a/1.jpg", "other folders"),
        ("1.jpeg", "1.jpg", "another suffix"),
        ("1.PNG", "images\\1.jpg", "backslashes, other folders, another suffix"),
    ],
)
def test_a_file_that_is_there_under_another_name_is_named(tmp_path, on_disk, listed, reasons):
    folder = tmp_path / "pictures"
    (folder / on_disk).parent.mkdir(parents=True)
    (folder / on_disk).touch()
    (folder / "other.txt").touch()
    hint = hint_at(folder, [listed])
    if (folder / listed).is_file():
        pytest.skip("this file system takes the two names for one")
    assert f"it is there under another name, such as '{on_disk}' for '{listed}' ({reasons})" in hint


def test_only_some_are_there(tmp_path):
    (tmp_path / "1.png").touch()
    assert "1 of 3 of them is there under another name" in hint_at(tmp_path, ["a/1.png", "a/2.png", "a/3.png"])


def test_two_files_of_one_name_are_no_answer(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").touch()
    assert "holds 2 files of other names, such as a/1.png" in hint_at(tmp_path, ["c/1.png"])


def test_the_folder_beside_that_holds_them_is_named(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "1.png").touch()
    assert f"they are in {tmp_path / 'val'}: pass that folder" in hint_at(tmp_path / "train", ["1.png"])
    assert f"they are in {tmp_path}: pass that folder" in hint_at(tmp_path / "train", ["val/1.png"])


def test_an_empty_folder_and_none_are_told_apart(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty holds no file" in hint_at(tmp_path / "empty", ["1.png"])
    assert "none does not exist" in hint_at(tmp_path / "none", ["1.png"])


def test_missing_images_are_hinted_at(tmp_path):
    (tmp_path / "1.png").touch()
    with pytest.raises(FileNotFoundError, match=r"1 of 1 listed images is missing .* '1.png' for .*\(backslashes"):
        ImageReader(tmp_path, ["images\\1.png"], [(0, 0)])


def test_a_name_of_a_hundred_thousand_folders_costs_no_more_than_a_short_one(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(file_names, "_key", lambda name: compared.append(len(name)) or name)
    (tmp_path / "1.png").touch()
    assert "such as '1.png'" in hint_at(tmp_path, ["in/" * 100_000 + "1.png"])
    assert sum(compared) < 10**6
