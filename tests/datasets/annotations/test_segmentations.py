"""All segmentations of a file are checked at the start, with masks only."""

import pytest

from datasets.annotations import segmentations
from datasets.coco import CocoDetection
from tests.helpers.coco_files import annotation, captured_warnings, write_coco

BOX = [4, 5, 10, 12]
SQUARE = [[4, 5, 14, 5, 14, 17, 4, 17]]


def dataset(tmp_path, forms, masks=True, **parts):
    annotations = [annotation(n, 1, BOX, segmentation=each) for n, each in enumerate(forms, start=1)]
    return CocoDetection(*write_coco(tmp_path, annotations, **parts), None, masks)


@pytest.mark.parametrize(
    ("segmentation", "sentence"),
    [
        (SQUARE[0], "a polygon that is not a list of numbers .* also if it is a single polygon"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "a corner that is NaN"),
        ([[1, 2, 3, 4, 5, 10**400]], "far outside"),
        ([[0, 0, 99_999, 0, 0, 1, 99_999, 1] * 20], "edges are longer"),
        ([["1", 2, 3, 4, 5, 6]], "not a list of numbers"),
        (None, "no segmentation, which --masks needs"),
        ("abc", "neither a list of polygons nor"),
        ({"size": [40, 30], "counts": [1200]}, r"a mask of \(h, w\) = \(40, 30\) on an image of \(30, 40\)"),
        ({"size": [30, 40], "counts": [600, 500]}, "of 1100 pixels on an image of 1200"),
        ({"size": [30, 40], "counts": "é"}, "invalid characters"),
    ],
)
def test_the_first_bad_segmentation_is_named_before_any_sample_is_read(tmp_path, segmentation, sentence):
    bad = [SQUARE, segmentation]
    with pytest.raises(ValueError, match=f"instances.json: annotation 2 of image 1 has .*{sentence}.*without --masks"):
        dataset(tmp_path, bad)
    dataset(tmp_path, bad, masks=False)


def test_crowds_are_checked_too(tmp_path):
    crowd = annotation(1, 1, BOX, iscrowd=1, segmentation={"size": [30, 40], "counts": [7]})
    with pytest.raises(ValueError, match="annotation 1 of image 1 has a run-length code of 7 pixels"):
        CocoDetection(*write_coco(tmp_path, [crowd]), None, True)


def test_what_covers_nothing_is_counted_in_one_warning(tmp_path):
    with captured_warnings() as logged:
        data = dataset(tmp_path, [SQUARE, [], [[]], [[1, 2, 3, 4]], [[1, 2, 3, 4], *SQUARE]])
    assert len(logged) == 1
    assert "4 segmentations have no polygon or one of fewer than three points" in logged[0]
    assert "3 of them are empty (annotation 2 of image 1; annotation 3" in logged[0]
    assert data[0][1]["masks"].flatten(1).sum(1).tolist() == [120, 0, 0, 0, 120]


def test_masks_need_at_least_one_segmentation(tmp_path):
    with pytest.raises(ValueError, match="none of the 2 annotations has a mask.*or run without --masks"):
        dataset(tmp_path, [[], [[1, 2, 3, 4]]])


def test_a_code_that_has_the_size_of_the_file_is_used_though_the_annotated_size_is_wrong(tmp_path):
    images = [{"id": 1, "file_name": "1.png", "width": 30, "height": 40}]
    data = dataset(tmp_path, [{"size": [30, 40], "counts": [30, 30, 1140]}], images=images)
    assert data[0][1]["masks"][0].any(dim=0).nonzero().flatten().tolist() == [1]


def test_a_file_is_opened_once_however_many_codes_its_image_has(tmp_path, monkeypatch):
    opened = []
    header = segmentations.read_header
    monkeypatch.setattr(segmentations, "read_header", lambda path: opened.append(path.name) or header(path))
    images = [{"id": 1, "file_name": "1.png"}]
    dataset(tmp_path, [{"size": [30, 40], "counts": [1200]}] * 5, images=images)
    assert opened == ["1.png"]
