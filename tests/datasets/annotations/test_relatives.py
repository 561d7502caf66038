"""What COCO's relatives write in another form is read right, with one line."""

import pytest

from datasets.coco import CocoDetection
from tests.helpers.coco_files import CATEGORIES, annotation, captured_warnings, write_coco

BOX = [4, 5, 10, 12]


def read(tmp_path, annotations, /, **parts):
    with captured_warnings() as logged:
        data = CocoDetection(*write_coco(tmp_path, annotations, **parts), None, False)
    return data, logged


@pytest.mark.parametrize(
    ("ids", "fault"),
    [
        ([0, 0, 0], "an annotation's id appears twice (0)"),
        ([5, 5, 6], "an annotation's id appears twice (5)"),
        (["c33c-0", "c33c-1", "c33c-2"], "an annotation's id is not an integer from 0 ('c33c-0')"),
        ([None, None, None], "an annotation has no id of its own"),
        ([1, -2, 3], "an annotation's id is not an integer from 0 (-2)"),
        ([1, 2**53 + 1, 3], "is not an integer from 0 (9007199254740993)"),
        ([1, True, 3], "is not an integer from 0 (True)"),
        ([1, [2], 3], "is not an integer from 0 ([2])"),
    ],
)
def test_annotation_ids_that_cannot_be_used_are_numbered_anew(tmp_path, ids, fault):
    data, logged = read(tmp_path, [annotation(1, 1 + n, [n, 0, 5, 5]) | {"id": id} for n, id in enumerate(ids)])
    assert len(logged) == 1 and fault in logged[0] and "numbered anew, 1 to 3" in logged[0]
    assert sorted(data.coco.anns) == [1, 2, 3]
    assert [data[n][1]["boxes"][0, 0].item() for n in range(3)] == [0, 1, 2]
    assert [data[n][1]["annotation_id"].tolist() for n in range(3)] == [[1], [2], [3]]


def test_usable_ids_stay_as_they_are(tmp_path):
    data, logged = read(tmp_path, [annotation(0, 1, BOX), annotation(2**53, 1, BOX)])
    assert sorted(data.coco.anns) == [0, 2**53] and not logged


def test_text_of_digits_and_whole_decimals_are_integers(tmp_path):
    images = [{"id": "000001", "file_name": "1.png", "width": "40", "height": 30.0}]
    entry = annotation(1, 1, BOX) | {"id": "12", "image_id": "1", "category_id": 7.0, "iscrowd": "0"}
    data, logged = read(tmp_path, [entry], images=images, categories=[{"id": "7", "name": "dog"}])
    target = data[0][1]
    assert data.ids == [1] and target["labels"].tolist() == [7] and target["annotation_id"].tolist() == [12]
    assert data.coco.imgs[1]["width"] == 40 and data.coco.anns[12]["iscrowd"] == 0
    assert any("ids or sizes written as text or decimals" in line for line in logged)


def test_a_box_written_as_text_is_one_of_numbers(tmp_path):
    data, logged = read(tmp_path, [annotation(1, 1, BOX) | {"bbox": ["4.0", " 5", "1e1", 12]}])
    assert data.coco.anns[1]["bbox"] == [4.0, 5.0, 10.0, 12]
    assert any("1 bbox written as text are read as numbers" in line for line in logged)


@pytest.mark.parametrize("text", ["nan", "inf", "1_0", "٣", "1,5", "", "0x10", "9" * 50])
def test_a_box_of_other_texts_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="needs a bbox of four numbers"):
        read(tmp_path, [annotation(1, 1, BOX) | {"bbox": [1, 2, 3, text]}])


def test_a_crowd_written_as_text_is_a_crowd(tmp_path):
    data, _ = read(tmp_path, [annotation(1, 1, BOX), annotation(2, 1, BOX) | {"iscrowd": "1"}])
    assert data.coco.anns[2]["iscrowd"] == 1 and data.objects_per_image.tolist() == [1, 0, 0]


def test_images_of_lvis_are_named_by_their_address(tmp_path):
    image = {"id": 1, "width": 40, "height": 30, "coco_url": "http://images.cocodataset.org/train2017/1.png"}
    image |= {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
    folder, ann_file = write_coco(tmp_path, [annotation(1, 1, BOX)], images=[image])
    with captured_warnings() as logged:
        assert CocoDetection(folder, ann_file, None, False).images[1]["file_name"] == "1.png"
        (folder / "train2017").mkdir()
        (folder / "1.png").rename(folder / "train2017" / "1.png")
        assert CocoDetection(folder, ann_file, None, False).images[1]["file_name"] == "train2017/1.png"
    assert any("taken from coco_url" in line for line in logged)
    assert any("AP is COCO's, not LVIS's" in line for line in logged)


@pytest.mark.parametrize(
    ("name", "read_as"), [("", "7"), ("  ", "7"), (None, "7"), (5, "5"), ([], "7"), (True, "7"), ("a b", "a b")]
)
def test_a_name_that_says_nothing_becomes_the_id(tmp_path, name, read_as):
    data, logged = read(tmp_path, [annotation(1, 1, BOX)], categories=[{"id": 7, "name": name}])
    assert data.categories == [{"id": 7, "name": read_as}]
    assert any("name of 1 category" in line for line in logged) == (read_as == "7")


def test_categories_of_one_name_are_counted(tmp_path):
    data, logged = read(tmp_path, [annotation(1, 1, BOX)], categories=[*CATEGORIES, {"id": 9, "name": "cat"}])
    assert len(data.categories) == 3
    assert logged == [logged[0]] and "1 category has the name of another ('cat': 2 and 9)" in logged[0]
