from pathlib import Path

import pytest

from prediction.image_list import list_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "in/c.tif", ".hidden/d.jpg", "._e.jpg", "in/b.jpg", "odd[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_folder_is_searched_recursively(folder: Path):
    assert list(list_images([str(folder)])) == ["a.PNG", "b.jpg", "in/b.jpg", "in/c.tif", "odd[1].jpg"]
    assert list(list_images([str(folder)], leave_out=folder / "in")) == ["a.PNG", "b.jpg", "odd[1].jpg"]


def test_patterns_and_files_whose_names_look_like_patterns(folder: Path):
    assert list(list_images([f"{folder}/*.jpg"])) == ["b.jpg", "odd[1].jpg"]
    assert list(list_images([f"{folder}/*"])) == ["a.PNG", "b.jpg", "odd[1].jpg"]
    assert len(list_images([f"{folder}/**/*.jpg"])) == 3
    assert list(list_images([f"{folder}/odd[1].jpg"])) == ["odd[1].jpg"]


def test_named_files_are_listed_once_whatever_their_suffix(folder: Path):
    names = [f"{folder}/notes.txt", f"{folder}/missing.jpg", f"{folder}/in/../notes.txt"]
    assert list(list_images(names)) == ["notes.txt", "missing.jpg"]


def test_files_with_equal_names_are_distinguished(folder: Path):
    found = list_images([f"{folder}/b.jpg", f"{folder}/in/b.jpg"])
    assert list(found) == ["b.jpg", "in/b.jpg"] and found["in/b.jpg"] == folder.resolve() / "in/b.jpg"


def test_no_images_is_an_error(folder: Path):
    with pytest.raises(ValueError, match=r"no images found in '.*\*\.bmp'"):
        list_images([f"{folder}/*.bmp"])
