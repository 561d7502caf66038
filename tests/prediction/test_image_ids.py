"""`--ann`: images keep their ids of a COCO file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prediction import image_ids
from prediction.image_ids import AnnotationFile
from tests.helpers.layouts import coco_layouts
from tests.helpers.predict_parts import write_picture


def write_ann(path: Path, ids: dict[str, int], **more) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": number, "file_name": name, "width": 60, "height": 40} for name, number in ids.items()]
    path.write_text(json.dumps({"images": images} | more))
    return path


def images_of(path: Path, *more) -> tuple[dict[str, Path], dict[str, int]]:
    """The files of an annotation file's images, and the ids of all of its images."""
    ann = AnnotationFile.read(path)
    return image_ids.images_of(ann, *more), ann.ids


def write_images(folder: Path, *names: str) -> Path:
    for name in names:
        write_picture(folder / name)
    return folder


def test_files_of_a_folder_get_the_ids_of_their_names(tmp_path: Path, capsys):
    folder = write_images(tmp_path / "val2017", "b.png", "a.png", "in/c.png", "extra.png")
    ann = write_ann(tmp_path / "ann.json", {"b.png": 7, "a.png": 3, "in/c.png": 1, "gone.png": 9})
    files, ids = images_of(ann, [str(folder)])
    assert {name: ids[name] for name in files} == {"b.png": 7, "a.png": 3, "in/c.png": 1}
    assert list(files) == ["b.png", "a.png", "in/c.png"] and files["in/c.png"] == (folder / "in/c.png").resolve()
    said = capsys.readouterr().out
    assert "1 image is not named in --ann" in said and "extra.png" in said
    assert "1 of the 4 images in --ann" in said and "not among the inputs (gone.png)" in said


@pytest.mark.parametrize("name", ["val2017/a.png", "./a.png", "val2017\\a.png", "a.png"])
def test_a_name_is_the_end_of_the_files_path(tmp_path: Path, name: str):
    folder = write_images(tmp_path / "val2017", "a.png")
    files, ids = images_of(write_ann(tmp_path / "ann.json", {name: 5}), [str(folder)])
    assert files == {name: (folder / "a.png").resolve()} and ids == {name: 5}


@pytest.mark.parametrize(
    ("ann", "folder"),
    [
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/image_info_test-dev2017.json", "test2017"),
        ("test/_annotations.coco.json", "test"),
        ("ann.json", "images"),
    ],
)
def test_without_inputs_the_images_are_found_around_the_file(tmp_path: Path, ann: str, folder: str):
    write_images(tmp_path / "train2017", "other.png")
    write_images(tmp_path / folder, "a.png", "b.png")
    files, ids = images_of(write_ann(tmp_path / ann, {"a.png": 5, "b.png": 2}), [])
    assert {name: file.resolve() for name, file in files.items()} == {
        name: (tmp_path / folder / name).resolve() for name in ("a.png", "b.png")
    }
    assert ids == {"a.png": 5, "b.png": 2}


def test_of_several_folders_the_one_that_the_file_is_named_for_is_taken_or_none(tmp_path: Path):
    for folder in ("train", "val"):
        write_images(tmp_path / folder, "a.png")
    files, _ = images_of(write_ann(tmp_path / "annotations/val.json", {"a.png": 1}), [])
    assert files["a.png"].parent.name == "val"
    with pytest.raises(ValueError, match=r"name their folder as well, predict\.py CHECKPOINT FOLDER --ann"):
        images_of(write_ann(tmp_path / "annotations/all.json", {"a.png": 1}), [])


def test_folders_that_are_further_away_do_not_count(tmp_path: Path):
    write_images(tmp_path / "mine/images", "a.png")
    write_images(tmp_path / "other", "a.png")
    files, _ = images_of(write_ann(tmp_path / "mine/ann.json", {"a.png": 1}), [])
    assert files["a.png"].parent.name == "images"


def test_pictures_of_a_job_are_not_taken_for_the_images(tmp_path: Path):
    write_images(tmp_path / "images", "a.png")
    write_images(tmp_path / "pictures", "a.png")
    ann = write_ann(tmp_path / "ann.json", {"a.png": 1})
    assert images_of(ann, [], [tmp_path / "pictures"])[0]["a.png"].parent.name == "images"
    (tmp_path / "progress.jsonl").write_text('{"settings": {}}\n')
    assert images_of(ann, [])[0]["a.png"].parent.name == "images"


BAD = {
    "a list": ([], "has no list `images`"),
    "no images": ({"images": []}, "lists no images"),
    "no id": ({"images": [{"file_name": "a.png"}]}, "id"),
    "ids twice": ({"images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]}, "1"),
    "names twice": ({"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "./a"}]}, "the same file_name"),
    "no name": ({"images": [{"id": 1}]}, "has no file_name"),
}


@pytest.mark.parametrize(("content", "fault"), BAD.values(), ids=BAD)
def test_a_file_without_usable_images_is_refused(tmp_path: Path, content, fault: str):
    (tmp_path / "ann.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=fault) as error:
        images_of(tmp_path / "ann.json", [])
    assert str(tmp_path / "ann.json") in str(error.value)


def test_images_that_are_not_the_files_are_refused(tmp_path: Path):
    folder = write_images(tmp_path / "photos", "a.png", "in/a.png")
    with pytest.raises(ValueError, match=r"none of the 2 images, such as a\.png, is named in --ann .*ann\.json"):
        images_of(write_ann(tmp_path / "ann.json", {"b.png": 1}), [str(folder)])
    with pytest.raises(ValueError, match=r"both are image a\.png of --ann"):
        images_of(write_ann(tmp_path / "ann.json", {"a.png": 1}), [str(folder)])
    with pytest.raises(ValueError, match="are not around it"):
        images_of(write_ann(tmp_path / "far/away/ann.json", {"b.png": 1}), [])


def test_other_names_of_classes_are_said(tmp_path: Path, capsys):
    categories = [{"id": 1, "name": "Cat "}, {"id": 2, "name": "dog"}, {"id": 5, "name": "bird"}]
    names = {1: "cat", 2: "horse"}
    AnnotationFile.read(write_ann(tmp_path / "ann.json", {"a": 1}, categories=categories)).warn_of_other_names(names)
    said = capsys.readouterr().out
    assert "category 2 is 'horse' in the checkpoint, but 'dog'" in said and "1 of 3 differ" in said
    AnnotationFile.read(write_ann(tmp_path / "ann.json", {"a": 1}, categories=categories[:1])).warn_of_other_names(
        names
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("part", "first"), [(None, 3), ("val", 3), ("test", 6)])
def test_a_data_set_of_any_format_names_images_and_ids(tmp_path, part, first):
    root = coco_layouts.roboflow(tmp_path, (0, 1))
    ann = AnnotationFile.of_data(root, part)
    files = image_ids.images_of(ann, [])
    assert sorted(ann.ids.values()) == [first, first + 1, first + 2]
    assert all(file.is_file() for file in files.values()) and list(files) == list(ann.ids)


def test_names_are_those_of_the_files_whatever_the_tool_wrote(tmp_path):
    ann = AnnotationFile.of_data(coco_layouts.label_studio_windows(tmp_path, (0, 1)), None)
    assert list(ann.ids)[0] == "images/cell 000.png"
    assert all(file.is_file() for file in image_ids.images_of(ann, []).values())


def test_a_part_that_is_not_there_is_refused(tmp_path):
    root = coco_layouts.published(tmp_path, (0, 1))
    with pytest.raises(ValueError, match=r"has no test part: name one that it has \(train and val\)"):
        AnnotationFile.of_data(root, "test")
    with pytest.raises(ValueError, match="tells no parts apart"):
        AnnotationFile.of_data(coco_layouts.cvat(tmp_path / "cvat", (0, 1)), "test")
