"""What is counted and measured of a data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from datasets.coco import CocoDetection
from training.recipes.facts import DataFacts, facts_of, facts_of_part

CROWD, EMPTY = {"iscrowd": 1, "bbox": [0, 0, 90, 90]}, {"bbox": [5, 5, 0, 7]}
BOXES = {1: [[0, 0, 10, 40], [10, 10, 20, 20], [0, 0, 40, 10]], 2: [[0, 0, 25, 25]], 3: []}  # image → xywh


def coco(*more: dict, sized: bool = True) -> dict:
    """Three pictures of 200 x 100, 50 x 50 and 100 x 100 with four objects of two classes, and `more` annotations."""
    sizes = {1: (200, 100), 2: (50, 50), 3: (100, 100)}
    size = {number: {"width": w, "height": h} if sized else {} for number, (w, h) in sizes.items()}
    images = [{"id": number, "file_name": f"{number}.png"} | size[number] for number in sizes]
    found = [(number, {"bbox": box}) for number, boxes in BOXES.items() for box in boxes] + [(2, one) for one in more]
    annotations = [
        {"id": index + 1, "image_id": number, "category_id": 7 if number == 1 else 9} | one
        for index, (number, one) in enumerate(found)
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in (7, 8, 9)],
    }


def check(facts: DataFacts) -> None:
    assert (facts.pictures, facts.classes, facts.objects, facts.most_objects) == (3, 2, 4, 3)
    assert facts.box_sides[50] == pytest.approx(0.2)  # 20 of 100 pixels, three times; 25 of 50 is the largest
    assert facts.box_sides[99] == pytest.approx(0.5, abs=0.02)
    assert facts.short_sides[50] == 100
    assert facts.elongation == pytest.approx(1.9)  # of 1, 1 and 2


def test_crowds_and_empty_boxes_are_no_objects():
    check(facts_of_part(coco()))
    check(facts_of_part(coco(CROWD, EMPTY)))


def test_a_built_data_set_has_the_same_facts_also_without_sizes_in_the_file(tmp_path: Path):
    for size, name in (((200, 100), "1.png"), ((50, 50), "2.png"), ((100, 100), "3.png")):
        Image.new("RGB", size).save(tmp_path / name)
    for sized in (True, False):
        (tmp_path / "a.json").write_text(json.dumps(coco(CROWD, sized=sized)))
        check(facts_of(CocoDetection(tmp_path, tmp_path / "a.json", None, False)))


def test_nothing_is_measured_where_nothing_is_known():
    empty = facts_of_part({"images": [], "annotations": [], "categories": []})
    assert (empty.pictures, empty.objects, empty.most_objects, empty.box_sides) == (0, 0, 0, {})
    unsized = facts_of_part(coco(sized=False))
    assert (unsized.objects, unsized.box_sides, unsized.short_sides, unsized.elongation) == (4, {}, {}, 1.0)
