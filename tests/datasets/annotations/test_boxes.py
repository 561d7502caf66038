"""Boxes that are probably not what COCO's format means give one warning each, or are refused."""

import re

import pytest
from PIL import Image

from datasets.coco import CocoDetection
from tests.helpers.coco_files import annotation, captured_warnings, write_coco


def warnings_of(tmp_path, annotations, /, **parts):
    with captured_warnings() as logged:
        CocoDetection(*write_coco(tmp_path, annotations, **parts), None, False)
    return logged


def boxes(*rows, **fields):
    return [annotation(n, 1 + n % 3, list(row), **fields) for n, row in enumerate(rows, start=1)]


CORNERS = [(10 + n, 8 + n, 30 + n, 25 + n / 2) for n in range(9)] + [(0, 0, 5, 5)]  # [x0, y0, x1, y1] in 40x30


def test_corners_in_place_of_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"9 of 10 boxes reach far .* 2.png.* write \[x0, y0, x1 - x0, y1 - y0\]"):
        warnings_of(tmp_path, boxes(*CORNERS))


def test_corners_are_not_refused_where_another_box_cannot_be_one(tmp_path):
    logged = warnings_of(tmp_path, boxes(*CORNERS, (20, 15, 5, 5)))
    assert any("9 of 11 boxes reach far" in line and "if they are corners" in line for line in logged)


def test_a_few_boxes_that_may_be_corners_give_a_warning(tmp_path):
    logged = warnings_of(tmp_path, boxes(*CORNERS[:3]))
    assert any("3 of 3 boxes reach far" in line and "if they are corners" in line for line in logged)


@pytest.mark.parametrize(
    "rows",
    [
        [(30, 20, 20, 20)] * 9 + [(10, 10, 30, 25)],  # reach far, but some cannot be corners
        [(1, 1, 40, 30)] * 10,  # the whole image, counted from 1
        [(5, 5, 10, 12)] * 10,
        [(0, 0, 1, 1)] * 10,  # single pixels
        [(0.3, 0.2, 12.7, 20.1)] * 10,
        [(10, 10, 30, 25)] + [(2, 3, 20, 20)] * 19,  # one that reaches far
    ],
)
def test_sizes_are_not_taken_for_corners_or_fractions(tmp_path, rows):
    assert not any("corners" in line or "fractions" in line for line in warnings_of(tmp_path, boxes(*rows)))


def test_fractions_give_one_warning_with_count_and_file(tmp_path):
    logged = warnings_of(tmp_path, boxes((0.15, 0.2, 0.45, 0.6), (0.5, 0.5, 0.5, 0.5), (1, 2, 30, 20)))
    assert len(logged) == 1 and "2 of 3 boxes lie within 0..1 pixels and look like fractions" in logged[0]
    assert "annotation 1 of image 2, 2.png: [0.15, 0.2, 0.45, 0.6]" in logged[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"attributes": {"occluded": False, "rotation": 35.0}},
        {"attributes": {"rotation": "35.0"}},
        {"rotation": -90},
        {"angle": 0.5},
        {"rotated_bbox": [5, 5, 10, 4, 30]},
    ],
)
def test_rotated_boxes_give_one_warning_with_count_and_file(tmp_path, fields):
    logged = warnings_of(tmp_path, [annotation(1, 1, [1, 2, 3, 4]), annotation(2, 3, [1, 2, 3, 4], **fields)])
    assert len(logged) == 1 and "1 box is rotated (annotation 2 of image 3, 3.png" in logged[0]


@pytest.mark.parametrize(
    "fields", [{"attributes": {"rotation": 0.0}}, {"rotation": 360}, {"attributes": []}, {"rotation": "none"}]
)
def test_upright_boxes_give_no_warning(tmp_path, fields):
    assert not warnings_of(tmp_path, [annotation(1, 1, [1, 2, 3, 4], **fields)])


@pytest.mark.parametrize(
    ("annotations", "sentence"),
    [
        ([], "the file has no annotations"),
        (boxes((1, 2, 3, 4), (5, 6, 7, 8), iscrowd=1), "2 crowd regions .iscrowd 1.*annotation 1 of image 2, 2.png"),
        (boxes((100, 100, 5, 5)), "1 boxes without area inside their image"),
    ],
)
def test_a_file_without_an_object_gives_one_warning(tmp_path, annotations, sentence):
    found = [line for line in warnings_of(tmp_path, annotations) if "no object to learn or to evaluate" in line]
    assert len(found) == 1 and re.search(sentence, found[0])


def test_boxes_on_turned_images_are_not_taken_for_corners(tmp_path):
    folder, ann_file = write_coco(tmp_path, boxes(*[(2, 20, 25, 38)] * 6), size=(64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in folder.iterdir():
        Image.open(path).save(path, exif=exif)
    CocoDetection(folder, ann_file, None, False)
