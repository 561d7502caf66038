"""What each kind of error costs, from cases that can be computed by hand, and beside the authors' own program."""

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from evaluation.errors.costs import costs_of
from evaluation.errors.kinds import KINDS, MISSED, find_errors, missed_objects
from evaluation.findings import summarize_matches
from tests.evaluation.errors.samples import CAT, DOG, summary_of
from tests.helpers.coco_samples import evaluated, made_ground_truth, perturbed
from tests.helpers.paths import SHARED_DATA

ALL = (*KINDS, MISSED)
FIRST, SECOND = [CAT, 0, 0, 100, 100], [CAT, 200, 0, 100, 100]


def costs(objects: list, detections: list) -> tuple[float | None, dict[str, float | None]]:
    summary = summary_of({1: objects}, {1: detections})
    found = costs_of(summary, find_errors(summary))
    return found.mean(), {kind: found.cost(kind) for kind in ALL}


def only(kind: str, cost: float) -> dict:
    return dict.fromkeys(ALL, 0.0) | {kind: pytest.approx(cost)}


def test_without_errors_nothing_costs_anything():
    assert costs([FIRST], [[CAT, 0.9, 0, 0, 100, 100]]) == (pytest.approx(1), dict.fromkeys(ALL, 0.0))


def test_a_misplaced_box_costs_what_its_place_gains():
    ap, found = costs([FIRST], [[CAT, 0.9, 0, 0, 100, 40]])
    assert ap == 0 and found == only("localisation", 1) | {"missed": 0}


def test_a_false_positive_before_a_true_one_costs_precision():
    for box, kind in (([300, 0, 50, 50], "background"), ([0, 0, 100, 40], "localisation")):
        ap, found = costs([FIRST], [[CAT, 0.9, *box], [CAT, 0.8, 0, 0, 100, 100]])
        assert ap == pytest.approx(0.5) and found == only(kind, 0.5)


def test_a_duplicate_costs_only_before_another_object():
    first, twice = [CAT, 0.9, 0, 0, 100, 100], [CAT, 0.8, 0, 0, 100, 90]
    assert costs([FIRST], [first, twice])[1] == dict.fromkeys(ALL, 0.0)
    ap, found = costs([FIRST, SECOND], [first, twice, [CAT, 0.7, 200, 0, 100, 100]])
    at_two_thirds = (51 * 1 + 50 * 2 / 3) / 101  # recalls up to 0.5 with precision 1
    assert ap == pytest.approx(at_two_thirds) and found == only("duplicate", 1 - at_two_thirds)


def test_a_wrong_label_costs_both_classes():
    dog = [DOG, 200, 0, 100, 100]
    detections = [[CAT, 0.9, 0, 0, 100, 100], [CAT, 0.95, 200, 0, 100, 100]]
    ap, found = costs([FIRST, dog], detections)
    assert ap == pytest.approx(0.25)  # cat 0.5, dog 0
    assert found == only("classification", 0.75)


def test_a_wrong_label_and_place_is_only_removed():
    dog = [DOG, 200, 0, 100, 100]
    detections = [[CAT, 0.9, 0, 0, 100, 100], [CAT, 0.95, 200, 0, 100, 30]]
    ap, found = costs([FIRST, dog], detections)
    assert ap == pytest.approx(0.25)
    assert found["both"] == pytest.approx(0.25)
    assert found["missed"] == pytest.approx(0.25)  # without the dog, the mean is that of the cats alone


def test_missed_objects_cost_recall():
    ap, found = costs([FIRST, SECOND], [[CAT, 0.9, 0, 0, 100, 100]])
    assert ap == pytest.approx(51 / 101) and found == only("missed", 50 / 101)


def test_where_everything_is_missed_there_is_nothing_to_measure_with():
    ap, found = costs([FIRST], [])
    assert ap == 0 and found == dict.fromkeys(KINDS, 0.0) | {"missed": None}


def test_without_objects_there_is_no_ap():
    assert costs([], [[CAT, 0.9, 0, 0, 100, 100]]) == (None, dict.fromkeys(ALL))


def test_two_errors_about_one_object_make_one_detection():
    ap, found = costs([FIRST], [[CAT, 0.9, 0, 0, 100, 40], [CAT, 0.8, 0, 0, 100, 30]])
    assert ap == 0 and found["localisation"] == pytest.approx(1)  # two would give more than the object's recall


def test_an_error_about_an_object_that_is_found_is_removed():
    ap, found = costs([FIRST], [[CAT, 0.9, 0, 0, 100, 40], [CAT, 0.8, 0, 0, 100, 100]])
    assert ap == pytest.approx(0.5) and found["localisation"] == pytest.approx(0.5)


def test_the_better_of_a_wrong_label_and_a_wrong_place_is_corrected():
    detections = [[DOG, 0.9, 0, 0, 100, 100], [CAT, 0.8, 0, 0, 100, 30]]
    _, found = costs([FIRST, [DOG, 300, 200, 50, 50]], detections)
    assert found["localisation"] == 0 and found["classification"] > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_ap_is_exactly_that_of_the_evaluation(seed):
    coco = made_ground_truth(seed)
    evaluator = evaluated(coco, perturbed(coco, seed), "auto")
    summary = summarize_matches(evaluator)
    found = costs_of(summary, find_errors(summary))
    rows = {row["id"]: row["AP50"] for row in evaluator.per_class()}
    expected = [np.nan if rows[i] == -1 else rows[i] for i in summary.ids]
    np.testing.assert_allclose(found.ap, expected, rtol=1e-14)


# What tidecv 1.0.1, the authors' program, gives for these detections at IoU 0.5 and 0.1: kind → cost, count.
TIDECV = {
    "classification": (0.041000, 85),
    "localisation": (0.050608, 377),
    "both": (0.015959, 269),
    "duplicate": (0.053322, 561),
    "background": (0.017662, 811),
    "missed": (0.174985, 375),
}


def test_costs_and_counts_are_those_of_the_authors_program():
    path = SHARED_DATA / "bccd" / "annotations" / "instances_val2017.json"
    if not path.exists():
        pytest.skip("bccd is not available")
    coco = COCO(str(path))
    predictions, random = perturbed(coco, jitter=0.15, most=90), np.random.default_rng(5)
    for found in predictions.values():  # of equal scores, the authors' program counts the wrong detection first
        found["scores"] = found["scores"].double() + torch.tensor(random.random(len(found["scores"])) * 1e-3)
    summary = summarize_matches(evaluated(coco, predictions, "auto"))
    errors = find_errors(summary)
    counts = {kind: int((errors.kinds == k).sum()) for k, kind in enumerate(KINDS)}
    counts[MISSED] = int(missed_objects(errors, summary).sum())
    found = costs_of(summary, errors)
    assert found.mean() == pytest.approx(0.346878, abs=1e-6)
    assert {kind: (found.cost(kind), counts[kind]) for kind in ALL} == {
        kind: (pytest.approx(cost, abs=1e-6), count) for kind, (cost, count) in TIDECV.items()
    }
