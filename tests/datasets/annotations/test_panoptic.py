"""COCO panoptic files: fields that are filled in, and entries rejected by image and segment id."""

import json

import pytest

from datasets.annotations.panoptic import read_panoptic
from tests.helpers.coco_files import captured_warnings
from tests.helpers.panoptic_files import CATEGORIES, map_of, segment, write_panoptic

IMAGES = [{"id": 4, "file_name": "4.png", "width": 40, "height": 30}]


def annotation(image_id=4, segments=(), **fields):
    return {"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": list(segments)} | fields


def write(folder, annotations, **parts):
    return write_panoptic(folder, {}, **{"images": IMAGES, "annotations": annotations} | parts)[2]


def test_a_complete_file_is_read_without_warnings(tmp_path):
    ann_file = write_panoptic(tmp_path, {4: (map_of(), [segment(5)]), 2: (map_of(), [])})[2]
    with captured_warnings() as logged:
        content = read_panoptic(ann_file)
    assert logged == []
    assert sorted(content.images) == sorted(content.annotations) == [2, 4]
    assert content.annotations[4]["segments_info"] == [segment(5)]
    assert [category["id"] for category in content.categories] == [2, 7]


def test_missing_fields_are_filled_in_with_one_warning(tmp_path):
    nameless = [{"id": 7, "isthing": True}]
    bare = [segment(5, iscrowd=None), segment(6, area=None), segment(7, area=-1), segment(8, area=float("nan"))]
    with captured_warnings() as logged:
        content = read_panoptic(write(tmp_path, [annotation(segments=bare)], categories=nameless))
    assert content.categories == [{"id": 7, "isthing": 1, "name": "7"}]
    found = content.annotations[4]["segments_info"]
    assert [part["iscrowd"] for part in found] == [0] * 4
    assert [part["area"] for part in found] == [100, None, None, None]
    assert len(logged) == 1
    assert logged[0].endswith("filled in missing category names (1), iscrowd of segments (1), areas of segments (3)")


def test_annotations_of_unlisted_images_are_ignored_with_one_warning(tmp_path):
    with captured_warnings() as logged:
        content = read_panoptic(write(tmp_path, [annotation(9), annotation(4), annotation(10)]))
    assert list(content.annotations) == [4]
    assert len(logged) == 1 and "ignored annotations of unlisted images: 2 (image 9; 10)" in logged[0]


@pytest.mark.parametrize(
    ("segments", "sentence"),
    [
        ([segment(0)], "image 4 has a segment .*'id': 0.*the colour of its pixels, .*in 1..16777215"),
        ([segment(2**24)], "image 4 has a segment .*16777216"),
        ([segment(5.0)], "image 4 has a segment"),
        ([segment(True)], "image 4 has a segment"),
        (["x"], "image 4 has a segment 'x'"),
        ([segment(5), segment(6), segment(5)], "segment 5 of image 4 appears twice in segments_info"),
        ([segment(5, category_id=8)], "segment 5 of image 4 has category_id 8, which `categories` does not list"),
        ([segment(5, category_id=[7])], "segment 5 of image 4 has category_id .7., which"),
        ([segment(5, category_id=None)], "segment 5 of image 4 has category_id None, which"),
        ([segment(5, iscrowd=2)], "segment 5 of image 4 has iscrowd 2: use 0 for one object"),
    ],
)
def test_an_unusable_segment_is_rejected(tmp_path, segments, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_panoptic(write(tmp_path, [annotation(segments=segments)]))


@pytest.mark.parametrize(
    ("annotations", "sentence"),
    [
        ([], "no entry under `annotations` for 1 of 1 images .image 4."),
        ([annotation(4), annotation(4)], "image 4 has two entries under `annotations`"),
        ([annotation(4, file_name=None)], "annotation of image 4 has file_name None: it must name the PNG"),
        ([annotation(4, file_name="")], "annotation of image 4 has file_name ''"),
        ([annotation(4, segments_info=None)], "annotation of image 4 has no list `segments_info`"),
        ([{"id": 1, "bbox": [0, 0, 1, 1]}], "every annotation needs an integer `image_id`"),
        ([annotation("four")], "every annotation needs an integer `image_id`"),
        ([7], "every annotation needs an integer `image_id`, got 7"),
    ],
)
def test_an_unusable_annotation_is_rejected(tmp_path, annotations, sentence):
    with pytest.raises(ValueError, match=f"panoptic.json: .*{sentence}"):
        read_panoptic(write(tmp_path, annotations))


@pytest.mark.parametrize("isthing", [None, 2, "1"])
def test_categories_must_have_isthing(tmp_path, isthing):
    wrong = [*CATEGORIES, {"id": 9, "name": "cow", "isthing": isthing}]
    with pytest.raises(ValueError, match="category 9 has isthing .*: it must be 1 for a thing"):
        read_panoptic(write(tmp_path, [annotation()], categories=wrong))


def test_files_of_another_format_are_rejected(tmp_path):
    ann_file = tmp_path / "panoptic.json"
    for content, sentence in (
        ({"images": []}, "not in the COCO panoptic format"),
        ([], "a COCO panoptic file must hold an"),
    ):
        ann_file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=sentence):
            read_panoptic(ann_file)
    with pytest.raises(ValueError, match="id 4 appears twice in `images`"):
        read_panoptic(write(tmp_path, [annotation()], images=IMAGES * 2))
    with pytest.raises(ValueError, match="id 7 appears twice in `categories`"):
        read_panoptic(write(tmp_path, [annotation()], categories=CATEGORIES[:1] * 2))


def test_ids_in_another_form_and_names_in_an_address_are_read(tmp_path):
    images = [{"id": "004", "coco_url": "http://images.cocodataset.org/val2017/4.png", "width": 40.0, "height": "30"}]
    with captured_warnings() as logged:
        content = read_panoptic(write(tmp_path, [annotation("4")], images=images))
    assert content.images[4]["file_name"] == "4.png" and content.images[4]["height"] == 30
    assert list(content.annotations) == [4]
    assert len(logged) == 2 and "4 ids or sizes written as text" in logged[0] and "coco_url" in logged[1]
