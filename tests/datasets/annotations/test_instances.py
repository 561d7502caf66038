"""COCO instances files: fields that are filled in, boxes that are clamped or dropped, and annotations rejected."""

import pytest

from datasets.coco import CocoDetection
from tests.helpers.coco_files import annotation, captured_warnings, write_coco


@pytest.fixture
def logged():
    with captured_warnings() as lines:
        yield lines


def dataset(tmp_path, annotations, /, **parts):
    return CocoDetection(*write_coco(tmp_path, annotations, **parts), None, False)


def test_boxes_are_clamped_or_dropped_with_one_warning(tmp_path, logged):
    data = dataset(
        tmp_path,
        [
            annotation(11, 1, [-4, 5, 10, 12]),
            annotation(12, 1, [30, 20, 20, 20]),
            annotation(13, 1, [10, 10, 0, 5], area=0),
            annotation(14, 2, [50, 5, 10, 10]),
            annotation(15, 2, [5, 5, -3, 8], area=24),
            annotation(16, 2, [20, 10, 20.01, 20]),  # exceeds the image by as much as rounding explains
            annotation(17, 99, [1, 1, 2, 2]),
        ]
        + [annotation(n, 3, [0, 0, 0, 0]) for n in range(20, 30)],
    )
    assert data[0][1]["boxes"].tolist() == [[0, 5, 6, 17], [30, 20, 40, 30]]
    assert data[0][1]["area"].tolist() == [120, 400]  # as annotated
    assert data[1][1]["boxes"].tolist() == [[20, 10, 40, 30]]
    assert len(logged) == 1 and data.problems in logged[0]
    assert "2 boxes extend beyond their image: clamped" in data.problems
    assert "13 boxes have no area inside their image: dropped" in data.problems
    assert "1 annotation belongs to an unlisted image: ignored" in data.problems
    assert "annotation 11 of image 1: [-4, 5, 10, 12]" in data.problems
    assert "annotation 15 of image 2" in data.problems and "annotation 22" not in data.problems  # the first few


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300, -(2**31), 10**400])
def test_a_box_with_values_beyond_any_image_is_rejected(tmp_path, value):
    with pytest.raises(
        ValueError, match=r"instances\.json: found NaN, .* in 1 of 2 boxes \(annotation 8 of image 2: \[1, "
    ):
        dataset(tmp_path, [annotation(5, 1, [1, 2, 3, 4]), annotation(8, 2, [1, value, 3, 4], area=1)])


def test_missing_area_iscrowd_info_and_names_are_filled_in_with_one_warning(tmp_path, logged, capsys):
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
    assert len(logged) == 1
    for part in ("info", "name of 1 category", "areas of 2 annotations", "iscrowd of 1 annotation"):
        assert part in logged[0]
    printed = [line for line in capsys.readouterr().out.splitlines() if line not in logged]
    assert printed == []  # pycocotools' output is suppressed


@pytest.mark.parametrize("area", ["abc", -5, float("nan"), 1e300, 10**400, True, []])
def test_an_unusable_area_becomes_that_of_the_box(tmp_path, logged, area):
    data = dataset(tmp_path, [annotation(1, 1, [4, 5, 10, 12], area=area)])
    assert data.coco.anns[1]["area"] == 120 and data[0][1]["area"].tolist() == [120]
    assert "filled in missing area of 1 annotation" in logged[0]


@pytest.mark.parametrize("crowd", [True, 1.0, 1, False, 0.0, 0, None])
def test_crowd_flags_become_integers(tmp_path, crowd):
    data = dataset(tmp_path, [annotation(1, 1, [4, 5, 10, 12]) | {"iscrowd": crowd}])
    assert data.coco.anns[1]["iscrowd"] is int(crowd or 0)
    assert len(data[0][1]["boxes"]) == (0 if crowd else 1)


def test_sizes_become_integers_and_unknown_ones_are_those_of_the_image(tmp_path):
    data = dataset(tmp_path, [annotation(1, 1, [4, 5, 100, 12])], images=[
        {"id": 1, "file_name": "1.png", "width": 40.0, "height": 30.0},
        {"id": 2, "file_name": "2.png", "width": None, "height": 0},
    ])  # fmt: skip
    first, second = data.coco.imgs.values()
    assert first["width"] == 40 and type(first["width"]) is int
    assert "width" not in second
    assert data[0][1]["boxes"].tolist() == [[4, 5, 40, 17]] and data[1][1]["orig_size"].tolist() == [30, 40]


@pytest.mark.parametrize("count", ["abc", -1, 2.5, None, [], 3])
def test_an_invalid_num_keypoints_is_removed(tmp_path, count):
    data = dataset(tmp_path, [annotation(1, 1, [4, 5, 10, 12]) | {"num_keypoints": count}])
    assert data.coco.anns[1].get("num_keypoints") == (3 if count == 3 else None)


def test_a_lone_surrogate_in_a_name_is_replaced(tmp_path):
    data = dataset(tmp_path, [], categories=[{"id": 7, "name": "c\ud83dt"}])
    assert data.categories == [{"id": 7, "name": "c?t"}]


@pytest.mark.parametrize("keypoints", [5, "abc", ["a", "b", "c"], [1, 2], [None] * 3, [1e300, 1, 2], {"a": 1}])
def test_invalid_keypoints_are_omitted(tmp_path, keypoints):
    data = dataset(tmp_path, [annotation(1, 1, [4, 5, 10, 12], keypoints=keypoints)])
    assert "keypoints" not in data[0][1]
