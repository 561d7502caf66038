"""Annotation files: what is filled in, clamped or dropped with a word, and what is refused by name."""

import pytest
from coco_files import CATEGORIES, annotation, warnings_said, write_coco

from datasets.coco import CocoDetection


@pytest.fixture
def said():
    with warnings_said() as lines:
        yield lines


def dataset(tmp_path, annotations, /, **parts):
    return CocoDetection(*write_coco(tmp_path, annotations, **parts), None, False)


def test_boxes_are_clamped_or_dropped_and_summed_up_in_one_line(tmp_path, said):
    data = dataset(
        tmp_path,
        [
            annotation(11, 1, [-4, 5, 10, 12]),
            annotation(12, 1, [30, 20, 20, 20]),
            annotation(13, 1, [10, 10, 0, 5], area=0),
            annotation(14, 2, [50, 5, 10, 10]),
            annotation(15, 2, [5, 5, -3, 8]),
            annotation(16, 2, [20, 10, 20.01, 20]),  # as much past the border as two decimals explain
            annotation(17, 99, [1, 1, 2, 2]),
        ]
        + [annotation(n, 3, [0, 0, 0, 0]) for n in range(20, 30)],
    )
    assert data[0][1]["boxes"].tolist() == [[0, 5, 6, 17], [30, 20, 40, 30]]
    assert data[0][1]["area"].tolist() == [120, 400]  # as annotated
    assert data[1][1]["boxes"].tolist() == [[20, 10, 40, 30]]
    assert len(said) == 1 and data.problems in said[0]
    assert "2 boxes reach past their image: clamped" in data.problems
    assert "13 boxes have no size inside their image: dropped" in data.problems
    assert "1 annotation belongs to no listed image: ignored" in data.problems
    assert "annotation 11 of image 1: [-4, 5, 10, 12]" in data.problems
    assert "annotation 15 of image 2" in data.problems and "annotation 22" not in data.problems  # the first few


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_box_that_is_not_finite_is_refused_by_name(tmp_path, value):
    with pytest.raises(ValueError, match=r"instances\.json: NaN or infinity in 1 of 2 boxes \(annotation 8 of image 2"):
        dataset(tmp_path, [annotation(5, 1, [1, 2, 3, 4]), annotation(8, 2, [1, value, 3, 4], area=1)])


def test_missing_area_iscrowd_info_and_names_are_filled_in_with_one_warning(tmp_path, said, capsys):
    data = dataset(
        tmp_path,
        [annotation(1, 1, [4, 5, 10, 12], area=None, iscrowd=None), annotation(2, 1, [0, 0, 3, 3], area=None)],
        info=None,
        categories=[{"id": 7}],
    )
    assert data[0][1]["area"].tolist() == [120, 9]
    assert data.coco.anns[1]["area"] == 120 and data.coco.anns[1]["iscrowd"] == 0
    assert data.coco.dataset["info"] == {}
    assert data.categories == [{"id": 7, "name": "7"}]
    assert len(said) == 1
    for part in ("info", "the name of 1 category", "the areas of 2 annotations", "iscrowd of 1 annotation"):
        assert part in said[0]
    printed = [line for line in capsys.readouterr().out.splitlines() if line not in said]
    assert printed == []  # pycocotools is kept quiet


@pytest.mark.parametrize(
    ("annotations", "parts", "sentence"),
    [
        ([], {"images": None}, "no list `images`"),
        ([], {"annotations": None}, "no list `annotations`"),
        ([], {"categories": None}, "no list `categories`"),
        ([], {"categories": {}}, "no list `categories`"),
        ([], {"categories": [{"name": "cat"}]}, "`categories` needs a whole number as id"),
        ([], {"categories": [{"id": -1, "name": "cat"}]}, "category id -1 is negative"),
        ([], {"categories": CATEGORIES + CATEGORIES}, "id 2 stands twice in `categories`"),
        ([], {"images": [{"id": "a", "file_name": "1.png"}]}, "`images` needs a whole number as id"),
        ([], {"images": [{"id": 4}]}, "image 4 has no file_name"),
        ([], {"images": [{"id": 4, "file_name": "1.png", "width": "40"}]}, "image 4 has width '40'"),
        ([annotation(3, 1, [1, 2, 3, 4], category_id=5)], {}, "annotation 3 of image 1 has category_id 5"),
        ([annotation(3, 1, [1, 2, 3, 4]), annotation(3, 2, [1, 2, 3, 4])], {}, "annotation id 3 stands twice"),
        ([annotation(3, 1, [1, 2, 3, 4], image_id=None)], {}, "whole number as image_id"),
        ([annotation(3, 1, [1, 2, 3, 4], bbox=None)], {}, "annotation 3 of image 1 needs a bbox"),
        ([annotation(3, 1, [1, 2, 3, 4], bbox=[1, 2, 3])], {}, "annotation 3 of image 1 needs a bbox"),
        ([annotation(3, 1, [1, 2, 3, 4], bbox=[1, 2, "3", 4])], {}, "annotation 3 of image 1 needs a bbox"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path, annotations, parts, sentence):
    with pytest.raises(ValueError, match=f"instances.json.*{sentence}"):
        dataset(tmp_path, annotations, **parts)


def test_a_missing_or_broken_annotation_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.json does not exist"):
        CocoDetection(tmp_path, tmp_path / "none.json", None, False)
    for content in (b"not json", b'{"images": [', b"\xff\xfe\x00", b""):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(ValueError, match="bad.json is not JSON"):
            CocoDetection(tmp_path, tmp_path / "bad.json", None, False)
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(ValueError, match="bad.json holds a JSON list"):
        CocoDetection(tmp_path, tmp_path / "bad.json", None, False)
