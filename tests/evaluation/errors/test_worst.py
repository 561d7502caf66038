"""Which pictures are shown as the worst, and what is said about them."""

import json

from evaluation.errors.content import errors_content
from evaluation.errors.kinds import find_errors
from evaluation.errors.worst import MAX_BOXES, describe_picture, worst_pictures
from evaluation.findings import summarize_matches
from tests.evaluation.errors.samples import CAT, DOG, summary_of
from tests.helpers.coco_samples import coco_of, evaluated, made_ground_truth, perturbed

PLACES = [[0, 0, 100, 100], [200, 0, 100, 100], [0, 150, 100, 100], [200, 150, 100, 100]]
RIGHT = [[CAT, 0.9, *place] for place in PLACES]
CATS = [[CAT, *place] for place in PLACES]


def worst(objects: dict, detections: dict, **more) -> list[tuple[int, str]]:
    summary = summary_of(objects, detections)._replace(threshold=0.5)
    return [(image, group) for image, group, _ in worst_pictures(summary, find_errors(summary), **more)]


def test_each_group_shows_the_picture_with_its_worst_errors():
    images = {
        1: RIGHT,
        2: RIGHT[:1],  # three missed
        3: [*RIGHT, [CAT, 0.8, 350, 0, 40, 40]],
        4: [*RIGHT[:3], [DOG, 0.8, *PLACES[3]]],
        5: [*RIGHT[:3], [CAT, 0.8, 200, 150, 100, 30]],
        6: RIGHT[:3],  # one missed
    }
    found = worst(dict.fromkeys(images, CATS), images)
    assert found == [(2, "missed"), (6, "missed"), (3, "invented"), (4, "mislabelled"), (5, "misplaced")]


def test_errors_below_the_threshold_are_not_shown():
    images = {1: RIGHT, 2: [*RIGHT, [CAT, 0.1, 350, 0, 40, 40]]}
    assert worst(dict.fromkeys(images, CATS), images) == []


def test_confident_errors_come_first():
    images = {i: [*RIGHT, [CAT, score, 350, 0, 40, 40]] for i, score in ((1, 0.8), (2, 0.85), (3, 0.82))}
    assert worst(dict.fromkeys(images, CATS), images) == [(2, "invented"), (3, "invented"), (1, "invented")]


def test_no_more_pictures_than_asked_for_and_none_twice():
    coco = made_ground_truth(images=40)
    summary = summarize_matches(evaluated(coco, perturbed(coco), "auto"))._replace(threshold=0.3)
    errors = find_errors(summary)
    found = worst_pictures(summary, errors)
    assert len(found) == 20 == len({image for image, *_ in found})
    groups = [group for _, group, _ in found]
    assert groups == sorted(groups, key=["missed", "invented", "mislabelled", "misplaced"].index)
    assert len(set(groups)) == 4 and groups.count("missed") < 10
    assert len(worst_pictures(summary, errors, 3)) == 3


def test_a_picture_lists_objects_and_detections_above_the_threshold():
    detections = [RIGHT[0], [DOG, 0.95, *PLACES[1]], [CAT, 0.05, *PLACES[2]]]
    summary = summary_of({7: CATS[:3]}, {7: detections})._replace(threshold=0.5)
    found = describe_picture(summary, find_errors(summary), 7)
    states = [(one["class"], one["found"], one["missed"]) for one in found["objects"]]
    assert states == [(0, True, False), (0, False, False), (0, False, True)]
    kinds = [(one["score"], one["kind"], one["object"], one["iou"]) for one in found["detections"]]
    assert kinds == [(0.95, "classification", 1, 1.0), (0.9, "correct", 0, 1.0)]


def test_a_picture_full_of_boxes_is_bounded():
    objects = [[CAT, x, y, 8, 8] for x in range(0, 400, 10) for y in range(0, 300, 10)]
    summary = summary_of({1: objects}, {})
    assert len(describe_picture(summary, find_errors(summary), 1)["objects"]) == MAX_BOXES


def test_the_content_adds_up_and_is_plain():
    coco = made_ground_truth()
    evaluator = evaluated(coco, perturbed(coco), "auto")
    summary = summarize_matches(evaluator)
    content = errors_content(summary, coco, len(evaluator.img_ids))
    assert json.loads(json.dumps(content)) == content
    counts = {row["kind"]: row["count"] for row in content["kinds"]}
    for kind, count in counts.items():
        assert count == sum(row["counts"][kind] for row in content["per_class"])
    assert content["objects"] == sum(row["objects"] for row in content["per_class"])
    assert content["found"] == sum(row["found"] for row in content["per_class"])
    wrong = sum(count for kind, count in counts.items() if kind != "missed")
    assert content["detections"] == content["found"] + wrong


def test_no_images_with_objects_or_detections_give_an_empty_list():
    summary = summary_of({1: []}, {})
    content = errors_content(summary, coco_of({"images": [], "annotations": [], "categories": []}), 1)
    assert content["pictures"] == [] and content["AP50"] is None
