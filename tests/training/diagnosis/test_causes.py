"""The likeliest cause: each is told from evidence of it, and healthy evidence gives none."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from training.diagnosis import causes
from training.diagnosis.causes import Evidence, Trial, find_causes, find_oddities, otherwise
from training.diagnosis.evidence import DataFacts, Found

NAMES = {1: "circle", 2: "square", 3: "triangle"}
FALLING = [10 * 0.99**step for step in range(200)]


def facts(objects=(3, 2, 4), side: float = 20.0, **more) -> DataFacts:
    """Objects of classes 1, 2, 3, 1, … with this side at the model's input, and twice of it in the file."""
    count = sum(objects)
    labels = np.arange(count) % 3 + 1
    sides = np.full((count, 2), side)
    healthy = {"offsets": Counter({0: count}), "forms": Counter(sizes=count), "annotations": count}
    return DataFacts(np.array(objects), labels, sides, 2 * sides, **(healthy | more))


def found(truth, predicted, objects: int = 10, as_corners: int = 0) -> Found:
    return Found(np.array(truth, dtype=int), np.array(predicted, dtype=int), objects, as_corners)


def healthy(**more) -> Evidence:
    """What a run with nothing wrong shows, changed by `more`."""
    known = {
        "steps": len(FALLING),
        "data": facts(),
        "classes": ({1, 2, 3}, {1, 2}),
        "names": NAMES,
        "found": found([1, 2, 3, 1, 2, 3], [1, 2, 3, 1, 2, 2]),
        "found_before": found([1, 2, 3], [1, 2, 3], as_corners=1),
        "changes": {"backbone": 0.02, "transformer": 0.1},
        "losses": FALLING,
        "trials": (Trial(0.1, 60, 8.0, 5.5),),
    }
    return Evidence(10, 1e-4, 1e-5, 160, **(known | more))


def names_of(evidence: Evidence) -> list[str]:
    return [cause.name for cause in find_causes(evidence)]


def sentence_of(evidence: Evidence) -> str:
    return find_causes(evidence)[0].sentence


def test_healthy_evidence_and_none_at_all_show_no_cause():
    assert names_of(healthy()) == []
    assert names_of(Evidence(10, 1e-4, 1e-5, 160)) == []


PLANTED = {
    causes.RATE_ZERO: {"changes": {"backbone": 0.1, "transformer": 0.0}},
    causes.LABELS: {"data": facts(offsets=Counter({1: 9}))},
    causes.CORNERS: {"data": facts(forms=Counter(corners=9))},
    causes.QUERIES: {"data": facts(objects=(3, 12))},
    causes.TINY: {"data": facts(side=1.5)},
    causes.RATE_HIGH: {"trials": (Trial(0.1, 60, 4.0, 9.0),)},
    causes.FROZEN: {"frozen": ["stem", "layer1"]},
    causes.RATE_LOW: {"trials": (Trial(10.0, 60, 4.0, 9.0),)},
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_cause_is_told_from_its_evidence(name):
    assert names_of(healthy(**PLANTED[name])) == [name]


def test_every_check_has_its_evidence_here():
    assert list(PLANTED) == list(causes.CHECKS), "in the order of likelihood"


def test_of_two_causes_the_one_that_explains_more_comes_first():
    both = PLANTED[causes.FROZEN] | PLANTED[causes.QUERIES]
    assert names_of(healthy(**both)) == [causes.QUERIES, causes.FROZEN]


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [
        ([1, 2, 1, 2, 1, 2], [2, 3, 2, 3, 2, 3]),  # by one
        ([1, 2, 3, 1, 2, 3], [2, 3, 1, 2, 3, 1]),  # by one, the last is the first
        ([1, 2, 2, 2, 2, 1, 2, 2, 2, 2], [0, 1, 1, 1, 1, 0, 1, 1, 1, 2]),  # nearly all
    ],
)
def test_classes_that_are_always_called_by_another_id_are_shifted(truth, predicted):
    for whose in ("found", "found_before"):
        assert names_of(healthy(**{whose: found(truth, predicted)})) == [causes.LABELS]


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [
        ([1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2]),  # one class: the model may know no other yet
        ([1, 2, 3, 1, 2, 3], [2, 2, 2, 2, 2, 2]),  # every object gets the same class
        ([1, 2, 3, 1, 2, 3], [2, 3, 3, 1, 2, 1]),  # any class
        ([1, 2], [2, 3]),  # too few
        ([], []),
    ],
)
def test_classes_that_are_merely_not_learned_are_not(truth, predicted):
    assert names_of(healthy(found=found(truth, predicted))) == []


def test_the_shift_is_named_with_the_classes_that_it_confuses():
    evidence = healthy(found=found([1, 2, 1, 2, 1, 2], [2, 3, 2, 3, 2, 3]))
    assert "shifted by +1, such as 2 ('square') for 1 ('circle')" in sentence_of(evidence)


@pytest.mark.parametrize(("train", "val", "said"), [({1, 2}, {0, 1}, "shifted by -1"), ({1}, {4, 5}, "other classes")])
def test_parts_of_the_data_with_other_ids_are_seen(train, val, said):
    evidence = healthy(classes=(train, val))
    assert names_of(evidence) == [causes.LABELS] and said in sentence_of(evidence)


@pytest.mark.parametrize("classes", [({1, 2, 3}, {2, 3}), ({1, 2}, {1, 2}), ({1}, set()), None])
def test_parts_that_share_classes_are_not(classes):
    assert names_of(healthy(classes=classes)) == []


def test_objects_of_a_class_called_background_are_noticed_even_where_they_were_learned():
    evidence = healthy(data=facts(background="3 objects belong to class 0, 'background'"))
    assert [oddity.name for oddity in find_oddities(evidence)] == [causes.LABELS]
    assert find_oddities(healthy(**PLANTED[causes.QUERIES])) == []


@pytest.mark.parametrize(
    ("far", "fitting", "corner_like", "named"),
    [
        (6, 6, 9, True),  # all could be corners, most reach far beyond
        (2, 2, 9, True),
        (6, 6, 8, True),  # one of them is right
        (2, 2, 5, False),  # some boxes are careless, as others cannot be corners
        (6, 5, 9, False),
        (1, 1, 9, False),
        (0, 0, 9, False),  # large objects near the upper left
    ],
)
def test_boxes_are_corners_if_they_only_fit_as_such(far, fitting, corner_like, named):
    evidence = healthy(data=facts(far=far, fitting=fitting, corner_like=corner_like))
    assert names_of(evidence) == [causes.CORNERS] * named


def test_a_detector_that_finds_the_boxes_only_as_corners_tells_them():
    assert names_of(healthy(found_before=found([1, 2], [1, 2], as_corners=6))) == [causes.CORNERS]
    assert names_of(healthy(found_before=found([1, 2, 3, 1], [1, 2, 3, 1], as_corners=6))) == []


def test_the_share_of_objects_within_reach_of_the_queries_is_said():
    sentence = sentence_of(healthy(data=facts(objects=(5, 25))))
    assert "1 of 2 pictures has more objects (up to 25)" in sentence and "find 50% of the objects" in sentence
    assert "--num_queries 25" in sentence


def test_one_class_that_is_too_small_counts():
    data = facts(objects=(9,))
    data.sides[data.labels == 2], data.stored[:] = 1.0, 40.0
    evidence = healthy(data=data)
    assert names_of(evidence) == [causes.TINY]
    assert "3 of 3 objects of class 2 ('square')" in sentence_of(evidence)
    assert "--val_size 1280" in sentence_of(evidence), "8 pixels instead of one"


def test_objects_that_are_small_in_the_file_need_tiles_not_a_larger_size():
    data = facts(side=2.0)
    assert "tiles" in sentence_of(healthy(data=data)), "4 pixels in the file"
    data.stored[:] = 40.0
    assert "--val_size 640" in sentence_of(healthy(data=data)), "8 pixels instead of 2"


def test_a_rate_is_too_high_after_a_fault_until_lower_ones_prove_otherwise():
    evidence = healthy(fault="the loss is nan", trials=())
    assert names_of(evidence) == [causes.RATE_HIGH]
    evidence.trials = (Trial(0.1, 10, math.inf, math.inf),)
    assert names_of(evidence) == [] and "also with lower" in otherwise(evidence).sentence


def test_an_absurd_rate_and_one_with_which_nothing_falls_need_no_trial():
    for lr, losses, named in ((1.0, FALLING, True), (5e-3, FALLING[::-1], True), (5e-3, FALLING, False)):
        evidence = healthy(losses=losses, trials=())
        evidence.lr = lr
        assert names_of(evidence) == [causes.RATE_HIGH] * named


def test_without_a_cause_a_falling_loss_and_few_steps_ask_for_more_steps():
    assert otherwise(healthy()).name == causes.STEPS
    assert otherwise(healthy(losses=[5.0] * 20, steps=20)).name == causes.STEPS
    assert otherwise(healthy(losses=[5.0] * 200)).name == causes.UNKNOWN
    assert otherwise(Evidence(10, 1e-4, 1e-5, 160)).name == causes.STEPS
