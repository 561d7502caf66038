"""Each kind of error, from boxes whose overlaps are known: objects are 100 x 100 pixels."""

import pytest

from evaluation.errors.kinds import CORRECT, KINDS, LEFT_OUT, find_errors, found_objects, missed_objects
from tests.evaluation.errors.samples import CAT, COW, DOG, summary_of

OBJECT = [CAT, 0, 0, 100, 100]
NAMED = {CORRECT: "correct", LEFT_OUT: "left out"} | dict(enumerate(KINDS))


def kinds_of(objects: list, detections: list) -> list[str]:
    return [NAMED[kind] for kind in find_errors(summary_of({1: objects}, {1: detections})).kinds.tolist()]


@pytest.mark.parametrize(
    ("detection", "kind"),
    [
        ([CAT, 0.9, 0, 0, 100, 50], "correct"),  # IoU 0.5
        ([CAT, 0.9, 0, 0, 100, 49], "localisation"),
        ([CAT, 0.9, 0, 0, 100, 10], "localisation"),  # IoU 0.1
        ([CAT, 0.9, 0, 0, 100, 9], "background"),
        ([CAT, 0.9, 200, 0, 100, 100], "background"),
        ([DOG, 0.9, 0, 0, 100, 50], "classification"),
        ([DOG, 0.9, 0, 0, 100, 49], "both"),
        ([DOG, 0.9, 0, 0, 100, 10], "both"),
        ([DOG, 0.9, 0, 0, 100, 9], "background"),
    ],
)
def test_the_kind_depends_on_class_and_overlap(detection, kind):
    assert kinds_of([OBJECT], [detection]) == [kind]


def test_the_second_detection_of_an_object_is_a_duplicate():
    low, high = [CAT, 0.3, 0, 0, 100, 100], [CAT, 0.9, 0, 0, 100, 60]
    assert kinds_of([OBJECT], [low, high]) == ["duplicate", "correct"]


def test_without_objects_everything_is_background():
    assert kinds_of([], [[CAT, 0.9, 0, 0, 100, 100]]) == ["background"]


def test_a_detection_near_an_object_of_its_class_is_misplaced_even_where_it_covers_one_of_another():
    near = [CAT, 70, 0, 100, 100]
    dog = [DOG, 0, 0, 100, 100]
    assert kinds_of([near, dog], [[CAT, 0.9, 0, 0, 100, 100]]) == ["localisation"]


def test_a_duplicate_that_covers_another_class_is_mislabelled():
    cat, dog = [CAT, 0, 0, 100, 100], [DOG, 0, 0, 100, 90]
    detections = [[CAT, 0.9, 0, 0, 100, 100], [CAT, 0.8, 0, 0, 100, 95]]
    assert kinds_of([cat, dog], detections) == ["correct", "classification"]


def test_what_lies_in_a_crowd_region_is_no_error_and_crowds_are_not_missed():
    summary = summary_of({1: [[CAT, 0, 0, 100, 100, True]]}, {1: [[CAT, 0.9, 10, 10, 50, 50]]})
    errors = find_errors(summary)
    assert errors.kinds.tolist() == [LEFT_OUT]
    assert missed_objects(errors, summary).tolist() == [False]


def test_a_crowd_region_of_another_class_is_not_mislabelled():
    assert kinds_of([[DOG, 0, 0, 100, 100, True]], [[CAT, 0.9, 0, 0, 100, 100]]) == ["background"]


def test_objects_of_other_images_do_not_count():
    summary = summary_of({1: [OBJECT], 2: []}, {2: [[CAT, 0.9, 0, 0, 100, 100]]})
    errors = find_errors(summary)
    assert errors.kinds.tolist() == [KINDS.index("background")]
    assert missed_objects(errors, summary).tolist() == [True]


def test_an_error_names_its_object_and_overlap():
    objects = [[CAT, 0, 0, 100, 100], [DOG, 200, 0, 100, 100], [COW, 0, 200, 100, 100]]
    detections = [
        [CAT, 0.9, 0, 0, 100, 40],
        [CAT, 0.8, 200, 0, 100, 80],
        [COW, 0.7, 0, 200, 100, 60],
        [COW, 0.6, 300, 250, 50, 50],
    ]
    errors = find_errors(summary_of({1: objects}, {1: detections}))
    assert errors.objects.tolist() == [0, 1, 2, -1]
    assert errors.overlaps == pytest.approx([0.4, 0.8, 0.6, 0])


def test_an_object_is_missed_unless_a_detection_finds_mislabels_or_misplaces_it():
    objects = [[CAT, 0, 0, 100, 100], [CAT, 200, 0, 100, 100], [DOG, 0, 200, 100, 100], [COW, 200, 200, 100, 100]]
    found, misplaced = [CAT, 0.9, 0, 0, 100, 100], [CAT, 0.8, 200, 0, 100, 30]
    mislabelled, both = [COW, 0.3, 0, 200, 100, 90], [CAT, 0.2, 200, 200, 100, 30]
    summary = summary_of({1: objects}, {1: [found, misplaced, mislabelled, both]})
    errors = find_errors(summary)
    assert missed_objects(errors, summary).tolist() == [False, False, False, True]
    assert found_objects(errors, 4).tolist() == [True, False, False, False]
    confident = summary.detections.rows[:, 5] >= 0.5
    assert missed_objects(errors, summary, confident).tolist() == [False, False, True, True]
