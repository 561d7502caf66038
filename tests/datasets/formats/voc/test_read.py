"""Pascal VOC in COCO's form: boxes, sizes, classes and what is marked difficult."""

import json

import pytest
from PIL import Image

from datasets.formats import find_data
from datasets.formats.faults import collected_faults
from datasets.formats.voc.options import VocOptions
from datasets.image_decoding import ORIENTATION
from tests.helpers.layouts.voc_layouts import flat, object_xml, write_picture, write_xml


def read(folder, **options):
    return find_data(folder, VocOptions(**options)).parts["train"].read()


def one_object(folder, item):
    write_picture(folder / "a.png")
    write_xml(folder / "a.xml", item)
    return folder


@pytest.mark.parametrize(
    ("corners", "origin", "box"),
    [
        ((1, 1, 48, 36), 1, [0, 0, 48, 36]),  # the whole image
        ((5, 7, 5, 7), 1, [4, 6, 1, 1]),  # one pixel
        (("1.1", "2.25", "10.1", "20"), 1, [0.1, 1.25, 10, 18.75]),
        ((0, 0, 48, 36), 0, [0, 0, 48, 36]),
        (("0.5", "1e1", "+20", "030.50"), 0, [0.5, 10, 19.5, 20.5]),
    ],
)
def test_boxes_are_converted_exactly(tmp_path, corners, origin, box):
    annotation = read(one_object(tmp_path, object_xml(box=corners)), origin=origin)["annotations"][0]
    assert annotation["bbox"] == box
    assert annotation["area"] == box[2] * box[3]


def test_whole_pixels_stay_integers(tmp_path):
    assert all(type(value) is int for value in read(one_object(tmp_path, object_xml()))["annotations"][0]["bbox"])


def test_boxes_that_begin_at_0_are_said(tmp_path, capsys):
    one_object(tmp_path, object_xml(box=(0, 3, 5, 8)))
    read(tmp_path, origin=0)
    assert not capsys.readouterr().out
    assert read(tmp_path)["annotations"][0]["bbox"] == [-1, 2, 6, 6]
    said = capsys.readouterr().out
    assert "1 of 1 boxes begin before pixel 1" in said
    assert "pass --voc_origin 0" in said


@pytest.mark.parametrize(("difficult", "crowds"), [("ignore", [0, 1]), ("keep", [0, 0]), ("drop", [0])])
def test_difficult_objects_are_what_the_setting_says(tmp_path, capsys, difficult, crowds):
    write_picture(tmp_path / "a.png")
    hard = object_xml("dog", more="<pose>Left</pose><truncated>1</truncated><difficult>1</difficult>")
    write_xml(tmp_path / "a.xml", object_xml(more="<difficult>0</difficult>"), hard)
    data = read(tmp_path, difficult=difficult)
    assert [annotation["iscrowd"] for annotation in data["annotations"]] == crowds
    assert [category["name"] for category in data["categories"]] == ["cat", "dog"]  # in any case
    assert ("1 of 2 objects are marked difficult" in capsys.readouterr().out) == (difficult != "keep")
    if difficult == "ignore":
        assert data["annotations"][1].items() >= {"difficult": 1, "truncated": 1, "pose": "Left"}.items()


def test_parts_of_an_object_are_not_its_box(tmp_path):
    inner = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    data = read(one_object(tmp_path, object_xml("person", more=inner)))
    assert [annotation["bbox"] for annotation in data["annotations"]] == [[10, 5, 20, 20]]
    assert [category["name"] for category in data["categories"]] == ["person"]


def test_classes_may_be_of_any_script(tmp_path):
    names = ["a & b", "<猫>", "كلب", "x=1 #2 50%", "C:\\new"]
    write_picture(tmp_path / "a.png")
    write_xml(tmp_path / "a.xml", *(object_xml(name) for name in names))
    data = read(tmp_path)
    by_id = {category["id"]: category["name"] for category in data["categories"]}
    assert [by_id[annotation["category_id"]] for annotation in data["annotations"]] == names


def test_sizes_come_from_the_images(tmp_path, capsys):
    write_picture(tmp_path / "a.png", (20, 10))
    write_xml(tmp_path / "a.xml", size=None)
    write_picture(tmp_path / "b.png", (20, 10))
    write_xml(tmp_path / "b.xml", size=(40, 20))
    images = read(tmp_path)["images"]
    assert [(image["width"], image["height"]) for image in images] == [(20, 10), (20, 10)]
    said = capsys.readouterr().out
    assert "1 XML files state another size than that of their image" in said
    assert "b.xml: 40x20, the image has 20x10" in said


def test_a_turned_image_has_the_size_that_its_file_states(tmp_path):
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    for name, size in (("a", (48, 36)), ("b", (36, 48))):
        write_picture(tmp_path / f"{name}.jpg", (48, 36), exif=turned)
        write_xml(tmp_path / f"{name}.xml", size=size)
    images = read(tmp_path)["images"]
    assert [(image["width"], image["height"]) for image in images] == [(48, 36), (36, 48)]


def test_images_named_by_numbers_keep_them_as_ids(tmp_path):
    for name in ("000139", "2008"):
        write_picture(tmp_path / f"{name}.png")
    write_xml(tmp_path / "2008.xml")
    data = read(tmp_path)
    assert [image["id"] for image in data["images"]] == [139, 2008]
    assert data["annotations"][0]["image_id"] == 2008


def test_a_file_of_categories_states_other_ids(tmp_path):
    categories = [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat", "supercategory": "animal"}]
    (one_object(tmp_path, object_xml()) / "coco_categories.json").write_text(json.dumps(categories))
    data = read(tmp_path)
    assert data["categories"] == categories
    assert data["annotations"][0]["category_id"] == 2
    write_xml(tmp_path / "a.xml", object_xml("cow"))
    with pytest.raises(
        ValueError, match="a.xml has an object of class 'cow', which .*coco_categories.json does not list"
    ):
        read(tmp_path)
    (tmp_path / "coco_categories.json").write_text('[{"id": 1}]')
    with pytest.raises(ValueError, match="file of classes .* is not usable .each category needs a name of its own"):
        read(tmp_path)


def test_an_image_that_cannot_be_opened_is_left_to_the_loader(tmp_path):
    flat(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert len(read(tmp_path)["images"]) == 2


def test_a_check_collects_faulty_files_and_reads_the_rest(tmp_path):
    flat(tmp_path)
    write_picture(tmp_path / "c.png")
    (tmp_path / "c.xml").write_text("<annotation><object>")
    with collected_faults() as faults:
        data = read(tmp_path)
    assert [image["file_name"] for image in data["images"]] == ["a.png", "b.png"]
    assert [fault.path.name for fault in faults] == ["c.xml"]
    with pytest.raises(ValueError, match="c.xml line 1 is not well-formed XML"):
        read(tmp_path)
