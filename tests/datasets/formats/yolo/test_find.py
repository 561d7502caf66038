"""Recognising YOLO's formats: the layouts, the paths in their files, and which label file belongs to an image."""

import pickle

import pytest

from datasets.formats import find_data
from tests.helpers.layouts.voc_layouts import write_picture
from tests.helpers.layouts.yolo_layouts import (
    darknet,
    flat,
    labelling_program,
    lists,
    roboflow,
    roboflow_darknet,
    several_folders,
    ultralytics,
    write_label,
    write_pair,
)

FILES = {
    ultralytics: {"train": ["a b.png"], "val": ["c#1.png"]},
    roboflow: {"train": ["a_jpg.rf.1.png"], "val": ["b_jpg.rf.2.png"]},
    lists: {"train": ["a.png", "b.png"], "val": ["c.png"]},
    several_folders: {"train": ["one/images/a.png", "two/images/b.png"], "val": ["c.png"]},
    darknet: {"train": ["a.png"], "val": ["b.png"]},
    labelling_program: {"train": ["a.png", "b.png"]},
    flat: {"train": ["a.png", "b.png"]},
    roboflow_darknet: {"train": ["a.png"], "val": ["b.png"], "test": ["c.png"]},
}


@pytest.mark.parametrize("layout", FILES, ids=lambda layout: layout.__name__)
def test_every_layout_is_read(tmp_path, layout, capsys):
    found = find_data(layout(tmp_path / "my data = 50%"))
    assert found.kind == "YOLO"
    read = {name: part.read() for name, part in found.parts.items()}
    assert {name: [image["file_name"] for image in data["images"]] for name, data in read.items()} == FILES[layout]
    assert found.undivided == (len(read) == 1)
    for name, data in read.items():
        assert data["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
        assert all((found.parts[name].images / image["file_name"]).is_file() for image in data["images"])
        assert data["annotations"][0]["bbox"] == [18, 9, 12, 18]
    assert not capsys.readouterr().out


@pytest.mark.parametrize("layout", [lists, flat])
def test_a_part_can_be_sent_to_a_worker(tmp_path, layout):
    part = find_data(layout(tmp_path)).parts["train"]
    assert pickle.loads(pickle.dumps(part)).read() == part.read()


def test_a_label_file_without_image_is_said_once(tmp_path, capsys):
    labelling_program(tmp_path)
    write_label(tmp_path / "labels/lost.txt")
    part = find_data(tmp_path).parts["train"]
    part.read()
    part.read()
    assert capsys.readouterr().out.count("1 (labels/lost.txt) of the label files have no image: they are left out") == 1


def test_images_that_a_list_names_in_vain_are_said(tmp_path, capsys):
    lists(tmp_path)
    (tmp_path / "train.txt").write_text("./images/a.png\n\n./images/ghost.png\n")
    assert len(find_data(tmp_path).parts["train"].read()["images"]) == 1
    assert "1 of the 2 images that" in (said := capsys.readouterr().out)
    assert "train.txt names is not there (line 3: './images/ghost.png'): they are left out" in said


def test_two_images_of_one_stem_are_refused(tmp_path):
    flat(tmp_path)
    write_picture(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"images a.jpg and a.png in .* differ only in their suffix, so .*a.txt could"):
        find_data(tmp_path).parts["train"].read()
    (tmp_path / "a.txt").unlink()
    assert len(find_data(tmp_path).parts["train"].read()["images"]) == 3  # nothing to confuse


@pytest.mark.parametrize("name", ["labels", "classes", "class_names"])
def test_the_labels_of_an_image_named_like_a_file_of_names_are_read(tmp_path, name):
    flat(tmp_path)
    write_pair(tmp_path, tmp_path, name)
    data = find_data(tmp_path).parts["train"].read()
    owner = next(image["id"] for image in data["images"] if image["file_name"].startswith(name))
    assert [entry["image_id"] for entry in data["annotations"]].count(owner) == 1


def test_without_names_the_classes_are_their_numbers(tmp_path, capsys):
    write_pair(tmp_path / "images/train", tmp_path / "labels/train", "a")
    write_pair(tmp_path / "images/val", tmp_path / "labels/val", "b", "2 0.5 0.5 1 1")
    parts = find_data(tmp_path).parts
    assert [category["name"] for category in parts["train"].read()["categories"]] == ["0", "1", "2"]
    assert parts["train"].read()["categories"] == parts["val"].read()["categories"]
    assert capsys.readouterr().out.count("nothing states the names of the classes: they are named 0 to 2") == 1


def test_different_names_in_two_files_are_refused(tmp_path):
    (roboflow_darknet(tmp_path) / "test/_darknet.labels").write_text("dog\ncat\n")
    with pytest.raises(ValueError, match="test/_darknet.labels and .*train/_darknet.labels state different names"):
        find_data(tmp_path)


def test_a_part_that_is_not_there_is_named_with_the_line_and_does_not_spoil_the_others(tmp_path):
    (roboflow(tmp_path) / "data.yaml").write_text("names: [cat]\ntrain: ../train/images\nval: ../validation/images\n")
    found = find_data(tmp_path)
    assert set(found.parts) == {"train"} and not found.undivided
    assert "data.yaml line 3 states that val lies in '../validation/images', but it is" in found.unusable["val"]
    assert found.sentence().endswith("cannot be used: val; not read: train")
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: ../training/images\n")
    with pytest.raises(ValueError, match=r"data.yaml line 2 states that train lies in '../training/images'"):
        find_data(tmp_path)


def test_a_part_whose_folder_is_empty_does_not_spoil_the_others(tmp_path):
    for picture in (roboflow(tmp_path) / "valid/images").iterdir():
        picture.unlink()
    assert "no image of the val part; the folders that it names hold no image" in find_data(tmp_path).unusable["val"]


def test_images_of_a_kind_that_is_not_read_are_named(tmp_path):
    for picture in (roboflow(tmp_path) / "valid/images").iterdir():
        picture.rename(picture.with_suffix(".HEIC"))
    fault = find_data(tmp_path).unusable["val"]
    assert "of a kind that is read, but files of other kinds (.HEIC): correct the path, or save the images as" in fault


def test_an_export_without_its_images_says_so(tmp_path):
    for picture in darknet(tmp_path).rglob("*.png"):
        picture.unlink()
    with pytest.raises(ValueError, match=r"1 of the 1 images that .*train.txt names is not .*export the data again"):
        find_data(tmp_path)


def test_the_whole_disk_is_not_searched(tmp_path):
    (roboflow(tmp_path) / "data.yaml").write_text("names: [cat]\ntrain: /\nval: ../valid/images\n")
    fault = find_data(tmp_path).unusable["train"]
    assert (
        "data.yaml line 2 states that train lies in '/', which cannot be used: / is the whole disk, no folder" in fault
    )


def test_several_data_files_are_not_guessed(tmp_path):
    text = (several_folders(tmp_path) / "my.yaml").read_text()
    (tmp_path / "other.yaml").write_text(text)
    with pytest.raises(ValueError, match="holds several data files of YOLO: my.yaml, other.yaml"):
        find_data(tmp_path)
    (tmp_path / "data.yaml").write_text(text)
    assert find_data(tmp_path).evidence.name == "data.yaml"


def test_a_damaged_data_file_does_not_hide_behind_the_labels(tmp_path):
    (ultralytics(tmp_path) / "data.yaml").write_text("{{{")
    with pytest.raises(ValueError, match="data.yaml line 1 is not YAML that can be read"):
        find_data(tmp_path)


def test_images_and_texts_alone_are_no_data_set(tmp_path):
    write_picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a photo of a cat\n")
    with pytest.raises(ValueError, match="no data set is recognised"):
        find_data(tmp_path)


def test_pictures_drawn_from_the_labels_are_not_images_of_the_data_set(tmp_path):
    labelling_program(tmp_path)
    write_picture(tmp_path / "previews/a.png")
    assert len(find_data(tmp_path).parts["train"].read()["images"]) == 2
