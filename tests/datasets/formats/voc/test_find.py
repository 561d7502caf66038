"""Recognising Pascal VOC: the layouts, the lists of `ImageSets/Main`, and which image an XML file belongs to."""

import pickle

import pytest

from datasets.formats import find_data
from tests.helpers.layouts.voc_layouts import (
    devkit,
    flat,
    folders,
    mirrored,
    object_xml,
    roboflow,
    write_picture,
    write_xml,
)

FILES = {
    devkit: {"train": ["a.jpg", "b.jpg"], "val": ["c.jpg"], "test": ["d.jpg"]},
    folders: {"train": ["a.png", "b.png", "c.png"]},
    mirrored: {"train": ["a.png"], "val": ["b.png"]},
    roboflow: {"train": ["a_jpg.rf.1.jpg"], "val": ["b_jpg.rf.2.jpg"], "test": ["c_jpg.rf.3.jpg"]},
    flat: {"train": ["a.png", "b.png"]},
}


@pytest.mark.parametrize("layout", FILES, ids=lambda layout: layout.__name__)
def test_every_layout_is_read(tmp_path, layout):
    found = find_data(layout(tmp_path / "my data #1"))
    assert found.kind == "Pascal VOC"
    read = {name: part.read() for name, part in found.parts.items()}
    assert {name: [image["file_name"] for image in data["images"]] for name, data in read.items()} == FILES[layout]
    assert len({str(data["categories"]) for data in read.values()}) == 1  # an id means the same in each part
    assert found.undivided == (len(read) == 1)
    for name, data in read.items():
        assert all((found.parts[name].images / image["file_name"]).is_file() for image in data["images"])
        assert data["annotations"] or name == "test"


def test_a_part_can_be_sent_to_a_worker(tmp_path):
    part = find_data(devkit(tmp_path)).parts["train"]
    assert pickle.loads(pickle.dumps(part)).read() == part.read()


def test_trainval_is_the_training_part_where_there_is_no_train(tmp_path):
    devkit(tmp_path)
    (tmp_path / "ImageSets/Main/train.txt").unlink()
    parts = find_data(tmp_path).parts
    assert [image["file_name"] for image in parts["train"].read()["images"]] == ["a.jpg", "b.jpg"]  # not c, of val
    (tmp_path / "ImageSets/Main/val.txt").unlink()
    assert len(find_data(tmp_path).parts["train"].read()["images"]) == 3


@pytest.mark.parametrize(
    "line", ["a", "a.jpg", '"a"', "a  1", "JPEGImages\\a.jpg", "./JPEGImages/a.jpg", "x/VOC2007/a"]
)
def test_a_list_may_name_images_in_several_ways(tmp_path, line):
    (devkit(tmp_path) / "ImageSets/Main/train.txt").write_text(f"{line}\n")
    data = find_data(tmp_path).parts["train"].read()
    assert [image["file_name"] for image in data["images"]] == ["a.jpg"] and len(data["annotations"]) == 1


def test_an_image_that_a_list_names_twice_is_read_once(tmp_path):
    (devkit(tmp_path) / "ImageSets/Main/train.txt").write_text("a\nJPEGImages/a.jpg\na.jpg\nb.jpg\na\n")
    data = find_data(tmp_path).parts["train"].read()
    assert [image["file_name"] for image in data["images"]] == ["a.jpg", "b.jpg"] and len(data["annotations"]) == 2


def test_a_list_tells_two_images_of_one_stem_apart(tmp_path):
    write_picture(devkit(tmp_path) / "JPEGImages/a.png")
    (tmp_path / "ImageSets/Main/train.txt").write_text("a.png\na.jpg\n")
    with pytest.raises(ValueError, match="images a.jpg and a.png .* differ only in their suffix"):
        find_data(tmp_path).parts["train"].read()
    write_xml(tmp_path / "Annotations/a.xml", object_xml("cat"), filename="a.jpg")
    data = find_data(tmp_path).parts["train"].read()
    assert [image["file_name"] for image in data["images"]] == ["a.jpg", "a.png"]
    assert [entry["image_id"] for entry in data["annotations"]] == [data["images"][0]["id"]]


def test_a_name_without_folder_means_the_image_in_the_uppermost_one(tmp_path):
    write_picture(devkit(tmp_path) / "JPEGImages/deeper/a.jpg")
    write_xml(tmp_path / "Annotations/deeper/a.xml")
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\ndeeper/a\n")
    data = find_data(tmp_path).parts["train"].read()
    assert [image["file_name"] for image in data["images"]] == ["a.jpg", "deeper/a.jpg"]


def test_a_backslash_may_belong_to_the_name_of_a_file(tmp_path):
    write_picture(devkit(tmp_path) / "JPEGImages/inner/x\\y.jpg")
    write_xml(tmp_path / "Annotations/inner/x\\y.xml")
    (tmp_path / "ImageSets/Main/train.txt").write_text("Annotations/inner/x\\y\n")
    data = find_data(tmp_path).parts["train"].read()
    assert [image["file_name"] for image in data["images"]] == ["inner/x\\y.jpg"] and len(data["annotations"]) == 1


def test_a_name_with_a_space_and_a_number_is_not_cut(tmp_path):
    devkit(tmp_path)
    write_picture(tmp_path / "JPEGImages/a 1.jpg")
    write_xml(tmp_path / "Annotations/a 1.xml")
    (tmp_path / "ImageSets/Main/train.txt").write_text("a 1\n")
    assert [image["file_name"] for image in find_data(tmp_path).parts["train"].read()["images"]] == ["a 1.jpg"]


def test_lines_that_name_nothing_are_said_once(tmp_path, capsys):
    devkit(tmp_path)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\n\nghost\n")
    part = find_data(tmp_path).parts["train"]
    part.read()
    part.read()
    assert (
        capsys.readouterr().out.count(
            "1 of 2 lines name neither an image nor an XML file that is there (line 3: 'ghost')"
        )
        == 1
    )


def test_the_published_folders_are_two_data_sets(tmp_path):
    devkit(tmp_path / "VOC2007")
    devkit(tmp_path / "VOC2012")
    with pytest.raises(ValueError, match="holds 2 data sets: Pascal VOC .*VOC2007.*VOC2012"):
        find_data(tmp_path)


def test_an_image_without_xml_is_kept_and_an_xml_without_image_is_said(tmp_path, capsys):
    flat(tmp_path)
    write_picture(tmp_path / "empty.png")
    write_xml(tmp_path / "lost.xml", object_xml("ghost"))
    data = find_data(tmp_path).parts["train"].read()
    assert [image["file_name"] for image in data["images"]] == ["a.png", "b.png", "empty.png"]
    assert [category["name"] for category in data["categories"]] == ["a", "b"]
    assert "1 (lost.xml) of the XML files have no image: they are left out" in capsys.readouterr().out


def test_two_images_of_one_stem_are_told_apart_by_the_stated_name(tmp_path):
    flat(tmp_path)
    write_picture(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"images a.jpg and a.png in .* differ only in their suffix, so .*a.xml"):
        find_data(tmp_path).parts["train"].read()
    write_xml(tmp_path / "a.xml", filename="C:\\Users\\me\\a.jpg")
    data = find_data(tmp_path).parts["train"].read()
    assert [image["file_name"] for image in data["images"]] == ["a.jpg", "a.png", "b.png"]
    assert {annotation["image_id"] for annotation in data["annotations"]} == {1, 3}


def test_the_stated_name_counts_where_the_stem_is_another(tmp_path):
    write_picture(tmp_path / "images/photo.png")
    write_xml(tmp_path / "annotations/0001.xml", filename="photo.png")
    assert len(find_data(tmp_path).parts["train"].read()["annotations"]) == 1
    write_xml(tmp_path / "annotations/0002.xml", filename="photo.png")
    with pytest.raises(ValueError, match=r"0001.xml and .*0002.xml both belong to the image .*photo.png: remove one"):
        find_data(tmp_path).parts["train"].read()


def test_folders_of_images_of_equal_rank_are_not_guessed(tmp_path):
    write_xml(tmp_path / "xml_files/a.xml")
    for folder in ("left", "right"):
        write_picture(tmp_path / folder / "a.png")
    with pytest.raises(ValueError, match="can be in several folders: left, right"):
        find_data(tmp_path)


def test_xml_files_without_images_are_said(tmp_path):
    write_xml(tmp_path / "a.xml")
    with pytest.raises(ValueError, match="holds 1 XML files of Pascal VOC, but no folder below .* holds images"):
        find_data(tmp_path)
