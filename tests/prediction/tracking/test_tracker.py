"""Ids that last, and counts: on drawn boxes, and on drawn clips in which the shipped detector finds the shapes."""

import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks.drawn.moving_shapes import Mover, draw_frames
from prediction.predictor import Predictor
from prediction.tracking.line import Line
from prediction.tracking.tracker import Tracker
from tests.helpers.paths import REPOSITORY
from util.box_ops import box_iou

NAMES = {1: "circle", 2: "square"}


def frame(*objects: tuple[float, float, int, float]) -> SimpleNamespace:
    """Detections of boxes of 20 x 20 pixels: x0, y0, class, score."""
    boxes = torch.tensor([(x, y, x + 20, y + 20) for x, y, _, _ in objects]).reshape(-1, 4)
    return SimpleNamespace(
        boxes=boxes,
        scores=torch.tensor([score for *_, score in objects]),
        labels=torch.tensor([label for _, _, label, _ in objects], dtype=torch.int64),
    )


@pytest.fixture
def tracker() -> Tracker:
    pytest.importorskip("trackers", reason='needs pip install ".[track]"')
    return Tracker(NAMES, line=Line((0, 50, 100, 50)))


def test_an_object_keeps_its_id_while_others_come_and_go(tracker: Tracker):
    tracker.update(frame((10, 10, 1, 0.9)), 0.0)
    assert tracker.update(frame((60, 10, 2, 0.95), (12, 10, 1, 0.9)), 1 / 30) == [None, 1]
    assert tracker.update(frame((14, 10, 1, 0.9), (60, 10, 2, 0.95)), 2 / 30) == [1, 2]
    assert tracker.update(frame((60, 10, 2, 0.95)), 3 / 30) == [2]
    assert tracker.update(frame(), 4 / 30) == []
    assert tracker.update(frame((20, 10, 1, 0.9), (60, 10, 2, 0.95)), 5 / 30) == [1, 2]


def test_an_object_that_was_away_longer_than_a_second_gets_a_new_id(tracker: Tracker):
    for time in (0.0, 0.1, 0.2):
        tracker.update(frame((10, 10, 1, 0.9)), time)
    tracker.update(frame(), 0.3)
    tracker.update(frame((10, 10, 1, 0.9)), 1.9)
    assert tracker.update(frame((10, 10, 1, 0.9)), 2.0) == [2]


def test_a_second_detection_of_the_same_object_has_no_id(tracker: Tracker):
    for _ in range(12):
        ids = tracker.update(frame((11, 10, 2, 0.6), (10, 10, 1, 0.9)))
    assert ids == [None, 1]
    assert tracker.counts() == {1: 1}


def test_the_class_is_that_of_most_detections(tracker: Tracker):
    for label in (1, 2, 2, *[1] * 9):
        tracker.update(frame((10, 10, label, 0.9)))
    assert tracker.summary()["objects"] == {"circle": 1}


def test_crossings_are_counted_by_class_and_way(tracker: Tracker):
    for step in range(12):
        tracker.update(frame((10, 10 + 5 * step, 1, 0.9), (70, 70 - 5 * step, 2, 0.9)), step / 30)
    assert tracker.summary() == {
        "objects": {"circle": 1, "square": 1},
        "line": [0, 50, 100, 50],
        "in": {"circle": 1},
        "out": {"square": 1},
    }
    assert tracker.sentence() == "tracked: 1 circle, 1 square; in: 1 circle; out: 1 square"


@pytest.mark.parametrize(("rate", "least"), [(30, 10), (60, 10), (15, 5), (2, 3)])
def test_an_object_is_counted_after_a_third_of_a_second(tracker: Tracker, rate: float, least: int):
    slow = Tracker(NAMES, rate)
    slow.update(frame((10, 10, 1, 0.9)))  # no id yet
    for seen in range(1, least + 1):
        slow.update(frame((10, 10, 1, 0.9)))
        assert slow.counts() == ({1: 1} if seen >= least else {})


def test_a_detection_over_another_of_its_class_begins_no_object(tracker: Tracker):
    for _ in range(3):
        ids = tracker.update(frame((10, 10, 1, 0.9), (18, 10, 1, 0.8)))  # IoU 0.43
    assert ids == [1, None]
    for _ in range(2):
        ids = tracker.update(frame((10, 10, 1, 0.9), (24, 10, 1, 0.8)))
    assert ids == [1, 2]


@pytest.mark.parametrize("times", [(5.0, 5.0, 5.0), (5.0, 2.0, float("nan")), (5.0, None, 1.0)])
def test_times_that_do_not_advance_count_as_the_next_frame(tracker: Tracker, times):
    ids = [tracker.update(frame((10 + 3 * step, 10, 1, 0.9)), time) for step, time in enumerate(times)]
    assert ids == [[None], [1], [1]]


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(ValueError, match=r'which --track needs: pip install "\.\[track\]"'):
        Tracker(NAMES)


def test_shapes_on_known_paths_keep_their_ids_and_are_counted_exactly():
    pytest.importorskip("trackers", reason='needs pip install ".[track]"')
    predictor = Predictor(REPOSITORY / "weights/detr_tiny_shapes.pth", "cpu")
    tracker = Tracker(predictor.names, line=Line((48, 0, 48, 96)))
    movers = [
        Mover("circle", (78, 18), (-0.6, 0), side=23),
        Mover("square", (18, 48), (0.55, 0), side=23),
        Mover("triangle", (78, 78), (-0.6, 0), side=23),
    ]
    ids: dict[int, int] = {}
    switched = seen = 0
    for number, (picture, there) in enumerate(draw_frames(movers, 100)):
        found = predictor(picture)
        given = tracker.update(found, number / 30)
        overlaps = box_iou(found.boxes, torch.tensor([seen.box for seen in there]))[0]
        for index, overlap in enumerate(overlaps.unbind(1)):
            own = given[int(overlap.argmax())] if overlap.max() >= 0.5 else None
            seen += own is not None
            if own is not None:
                switched += ids.get(index, own) != own
                ids[index] = own
    assert seen >= 290 and switched <= 0.02 * seen
    assert tracker.summary()["objects"] == {"circle": 1, "square": 1, "triangle": 1}
    assert tracker.crossed() == {"in": {1: 1, 3: 1}, "out": {2: 1}}
