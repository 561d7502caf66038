"""Names in the output folder: one for each image and class, on any file system."""

from __future__ import annotations

import unicodedata
from itertools import permutations

import pytest

from prediction.output_names import class_folder, crop_name, map_name, own_names, picture_name


def folded(name: str) -> str:
    """What a file system makes of a name that distinguishes neither case nor Unicode's forms."""
    return unicodedata.normalize("NFD", name).casefold()


CLASHES = {
    "case": ["a.png", "A.png", "A.PNG"],
    "Unicode forms": ["caf\u00e9.png", "cafe\u0301.png"],
    "a suffix that is added": ["a.bmp", "a.bmp.png", "a.BMP"],
    "a folder named like a file": ["a.bmp", "a.bmp.png/b.png", "a.bmp.png/c.png"],
    "long names": [letter * count + ".png" for letter in "x图" for count in (251, 252)] + ["x" * 250 + ".webp"],
    "long names with one beginning": ["x" * 250 + end + ".webp" for end in "abc"],
    "folders": ["a/b.png", "A/b.png", "a/B.png"],
}


@pytest.mark.parametrize("names", CLASHES.values(), ids=CLASHES)
@pytest.mark.parametrize("form", [picture_name, map_name])
def test_every_image_has_its_own_name_on_any_file_system(names, form):
    files = own_names(names, form)
    assert sorted(files) == sorted(names)
    known = {folded(file) for file in files.values()}
    assert len(known) == len(names)
    folders = {folded(file).rsplit("/", count)[0] for file in files.values() for count in range(1, file.count("/") + 1)}
    assert not folders & known
    assert all(len(part.encode()) <= 255 for file in files.values() for part in file.split("/"))
    for order in list(permutations(names))[:24]:
        assert own_names(order, form) == files


def test_names_without_a_clash_are_the_images_own():
    names = ["a.jpg", "a.png", "a.jpeg", "b/a.png", "图.webp", "x" * 251 + ".png"]
    wanted = ["a.jpg", "a.png", "a.jpeg", "b/a.png", "图.webp.png", "x" * 251 + ".png"]
    assert [own_names(names, picture_name)[name] for name in names] == wanted


def test_a_name_in_use_stays_and_is_not_given_again():
    files = own_names(["A.png", "a.png"], picture_name, {"a.png": "a.png"})
    assert files["a.png"] == "a.png" and folded(files["A.png"]) != "a.png"


@pytest.mark.parametrize("name", ["..", "../../a.png", "/etc/a.png", "", "a//b.png", "./a.png"])
def test_no_name_leaves_the_folder(name):
    parts = own_names([name], picture_name)[name].split("/")
    assert not {"", ".", ".."} & set(parts)


def test_crops_of_long_names_keep_their_numbers():
    crops = {crop_name("x" * 251 + ".png", number) for number in (1, 12, 123)}
    assert len(crops) == 3 and all(len(crop) == 255 for crop in crops)
    assert {crop.split("-")[-1] for crop in crops} == {"1.png", "12.png", "123.png"}
    assert crop_name("in/a.jpg", 2) == "in/a-2.jpg"
    assert crop_name("x" * 250 + "a.png", 1) != crop_name("x" * 250 + "b.png", 1)


CLASSES = {
    1: "a/b",
    2: "a:b",
    3: "A_B",
    4: "..",
    5: "",
    6: "\U0001f600" * 100,
    7: "\U0001f600" * 101,
    8: "CON",
    9: "nul.txt",
    10: "cat\0",
    11: "\ud83d",
    12: "\u202egnp.exe",
    13: "cat",
    14: "cat",
    15: "cat ",
    16: "cat-14",
    17: "line\nbreak",
    18: "../../up",
}


def test_every_class_has_its_own_folder_that_any_system_takes(tmp_path):
    folders: dict[int, str] = {}
    for label, name in CLASSES.items():
        folders[label] = class_folder(label, name, folders)
    assert len({folded(folder) for folder in folders.values()}) == len(CLASSES)
    assert folders[13] == "cat"
    for folder in folders.values():
        (tmp_path / folder).mkdir()
        assert not set('<>:"/\\|?*\0\n\u202e') & set(folder) and len(folder.encode()) <= 255
        assert folder == folder.strip(" .") and folder.lower().split(".")[0] not in ("con", "nul")
    assert len(list(tmp_path.iterdir())) == len(CLASSES)
