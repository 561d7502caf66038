"""The threshold of each class, compared with a search over all of them."""

import pytest
import torch

from evaluation.findings import summarize_matches
from evaluation.thresholds import best_thresholds
from tests.evaluation.test_findings import counted_by_loops, matches_of
from tests.helpers.coco_samples import coco_of, evaluated, made_ground_truth, perturbed
from util.loading.class_thresholds import is_thresholds

CATEGORIES = [{"id": 1, "name": "found"}, {"id": 5, "name": "missed"}, {"id": 9, "name": "absent"}]
BOX = [0, 0, 10, 10]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_other_threshold_gives_a_class_a_better_f1(seed):
    coco = made_ground_truth(seed)
    evaluator = evaluated(coco, perturbed(coco, seed + 1, jitter=0.3), "auto")
    found = {one["id"]: one for one in best_thresholds(summarize_matches(evaluator))["classes"]}
    ids = [int(i) for i in evaluator.coco_eval["bbox"].params.catIds]
    compared = 0
    for class_id, matches in zip(ids, matches_of(evaluator)):
        if not matches.true_positive.any():
            continue
        f1 = {}
        for threshold in [*matches.scores.tolist(), found[class_id]["threshold"]]:
            kept, right = counted_by_loops(matches, threshold)
            f1[threshold] = 2 * right / (kept + matches.objects)
        assert f1[found[class_id]["threshold"]] == max(f1.values()) == found[class_id]["f1"]
        assert found[class_id]["objects"] == matches.objects
        compared += 1
    assert compared >= 2


def evaluation(*scores_and_boxes):
    """Of one object each of the classes 1 and 5 in two images, and detections (label, score, x) in the first."""
    annotations = [
        {"id": n, "image_id": image, "category_id": label, "bbox": BOX, "area": 100, "iscrowd": 0}
        for n, (image, label) in enumerate([(1, 1), (1, 5), (2, 1)], start=1)
    ]
    coco = coco_of({"images": [{"id": 1}, {"id": 2}], "categories": CATEGORIES, "annotations": annotations})
    labels, scores, left = zip(*scores_and_boxes)
    boxes = torch.tensor([[x, 0.0, x + 10.0, 10.0] for x in left])
    result = {"boxes": boxes, "labels": torch.tensor(labels), "scores": torch.tensor(scores)}
    nothing = {name: values[:0] for name, values in result.items()}
    return best_thresholds(summarize_matches(evaluated(coco, {1: result, 2: nothing}, "auto")))


def test_a_class_that_was_not_found_has_no_threshold_and_an_absent_one_no_entry():
    found = evaluation((1, 0.8, 0), (1, 0.6, 50), (5, 0.9, 50), (9, 0.7, 0))
    assert [one["id"] for one in found["classes"]] == [1, 5]
    own, missed = found["classes"]
    assert 0.6 < own["threshold"] < 0.8 and own["f1"] == pytest.approx(2 / 3) and own["objects"] == 2
    assert missed == {"id": 5, "objects": 1, "threshold": None, "f1": 0.0}
    assert is_thresholds(found)


def test_of_equal_f1_the_highest_threshold_counts():
    found = evaluation((1, 0.9, 0), (1, 0.5, 50), (1, 0.4, 60), (1, 0.3, 70), (5, 0.2, 0))
    assert 0.5 < found["classes"][0]["threshold"] < 0.9
    assert 0.0 <= found["classes"][1]["threshold"] < 0.2 and found["classes"][0]["f1"] == 2 / 3


def test_a_score_of_zero_gives_a_threshold_that_predict_accepts():
    found = evaluation((1, 0.0, 0))
    assert found["classes"][0]["threshold"] == 0 and found["overall"]["threshold"] == 0


def test_without_a_right_detection_there_is_no_overall_threshold():
    found = evaluation((1, 0.5, 50))
    assert found["overall"] is None and is_thresholds(found)
