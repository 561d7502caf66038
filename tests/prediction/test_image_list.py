import io
from pathlib import Path

import pytest

from prediction.image_list import list_images
from tests.helpers.coco_files import captured_warnings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "in/c.tif", ".hidden/d.jpg", "._e.jpg", "in/b.jpg", "odd[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_folder_is_searched_recursively(folder: Path):
    assert list(list_images([str(folder)])) == ["a.PNG", "b.jpg", "in/b.jpg", "in/c.tif", "odd[1].jpg"]
    assert list(list_images([str(folder)], leave_out=[folder / "in"])) == ["a.PNG", "b.jpg", "odd[1].jpg"]


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


def test_one_warning_says_what_was_left_out(folder: Path):
    with captured_warnings() as lines:
        list_images([str(folder), f"{folder}/*.bmp", str(folder / "in")])
    assert lines == [
        "left out: 2 hidden files or folders (._e.jpg, .hidden); 1 file is not an image that Pillow reads (notes.txt); "
        f"1 pattern matches nothing ({folder}/*.bmp)"
    ]
    with captured_warnings() as lines:
        list_images([f"{folder}/b.jpg", f"{folder}/in"])
    assert lines == []


def test_without_any_image_the_error_says_what_was_there(folder: Path):
    (folder / "b.heic").touch()
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images found in '.*\*\.heic' \(1 file is not .*b\.heic\)\): name files"):
        list_images([f"{folder}/*.heic"])
    with pytest.raises(ValueError, match=r"no images found in '.*empty' \(1 folder has no images \(.*empty\)\)"):
        list_images([f"{folder}/empty"])


def test_patterns_name_what_they_match_and_do_not_take(folder: Path):
    with captured_warnings() as lines:
        assert list(list_images([f"{folder}/*"])) == ["a.PNG", "b.jpg", "odd[1].jpg"]
    assert "1 folder matches a pattern and is not searched" in lines[0] and "notes.txt" in lines[0]


def test_patterns_with_two_stars_match_folders_of_any_depth(folder: Path):
    (folder / "in/deep").mkdir()
    (folder / "in/deep/x.jpg").touch()
    (folder / "in/deep/back").symlink_to(folder)  # a loop
    (folder / "in/deep/again").symlink_to(folder / "in")
    assert set(list_images([f"{folder}/**/*.jpg"])) == {"b.jpg", "in/b.jpg", "in/deep/x.jpg", "odd[1].jpg"}
    assert list(list_images([f"{folder}/i*/**/x.*"])) == ["x.jpg"]
    assert list(list_images([f"{folder}/**/in/**/?.tif"])) == ["c.tif"]
    assert len(list_images([f"{folder}/**"])) == 6


def test_names_through_links_stay_when_folders_are_told_apart(folder: Path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "b.jpg").touch()
    (folder / "more").symlink_to(outside)
    assert list(list_images([f"{folder}/b.jpg", f"{folder}/more/b.jpg"])) == ["b.jpg", "more/b.jpg"]


def test_images_in_the_output_folder_are_said(folder: Path):
    with pytest.raises(ValueError, match="images are in the output folder .*: choose another --out folder"):
        list_images([f"{folder}/in"], leave_out=[folder])
    with captured_warnings() as lines:
        assert list(list_images([f"{folder}/b.jpg", f"{folder}/in/c.tif"], leave_out=[folder / "in"])) == ["b.jpg"]
    assert lines == ["left out: 1 image is in the output folder (c.tif)"]


@pytest.mark.parametrize("address", ["https://example.org/a.jpg", "s3://bucket/a.jpg", "file:///tmp/a.jpg"])
def test_addresses_are_refused_unless_there_are_files_too(folder: Path, address: str):
    with pytest.raises(ValueError, match=f"^{address} is an address, and images are read from files only: "):
        list_images([address])
    with pytest.raises(ValueError, match=r"\(1 of 2\)$"):
        list_images([address, "http://example.org/b.jpg"])
    assert list(list_images([address, f"{folder}/b.jpg"])) == ["a.jpg", "b.jpg"]


class Bytes(io.StringIO):
    """Standard input of these bytes."""

    def __init__(self, content: bytes):
        self.buffer = io.BytesIO(content)


def test_a_list_may_hold_names_that_are_not_text_or_that_no_file_can_have(folder: Path, monkeypatch):
    lines = [b"\xef\xbb\xbfa.png\r", b"", b"\xff.png", b"b\0c.png", "x\u2028y.png".encode(), b"z" * 5000, b"d.png"]
    monkeypatch.setattr("sys.stdin", Bytes(b"\n".join(lines)))
    found = list_images(["-"])
    assert list(found) == ["a.png", "\udcff.png", "b\0c.png", "x\u2028y.png", "z" * 5000, "d.png"]


def test_a_link_to_itself_is_left_to_reading(folder: Path):
    (folder / "self.png").symlink_to("self.png")
    assert list(list_images([f"{folder}/self.png"])) == ["self.png"]
