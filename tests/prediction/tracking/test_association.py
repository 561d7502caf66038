"""Which detection is which object: after losses, beside others, at the edges of the frame and at slow rates."""

import numpy as np
import pytest

from prediction.tracking.association import Association

SIZE = (200, 100)
CIRCLE, SQUARE = 1, 2


@pytest.fixture
def make():
    pytest.importorskip("trackers", reason='needs pip install ".[track]"')
    return Association


def follow(association: Association, frames: list, rate: float = 30.0, size=SIZE) -> list[list[int | None]]:
    """The ids of the objects of each frame, each of them (centre x, centre y, class), with boxes of 20 x 20 pixels."""
    given = []
    for number, objects in enumerate(frames):
        centres = np.array([(x, y) for x, y, _ in objects], dtype=float).reshape(-1, 2)
        boxes = np.concatenate([centres - 10, centres + 10], axis=1)
        ones = np.ones(len(boxes))
        labels = [label for *_, label in objects]
        given.append(association.update(boxes, ones, labels, ones > 0, number / rate, size))
    return given


def test_a_new_object_beside_one_that_was_just_lost_is_the_same(make):
    standing, beside = [(100, 50, CIRCLE)], [(119, 50, CIRCLE)]
    assert follow(make(30), [standing] * 3 + [beside] * 2)[-1] == [1]
    far = [(125, 50, CIRCLE)]
    assert follow(make(30), [standing] * 3 + [far] * 2)[-1] == [2]


def test_a_new_object_of_another_class_is_another_one(make):
    assert follow(make(30), [[(100, 50, CIRCLE)]] * 3 + [[(119, 50, SQUARE)]] * 2)[-1] == [2]


def test_a_new_object_beside_one_that_is_still_seen_is_another_one(make):
    assert follow(make(30), [[(100, 50, CIRCLE)]] * 3 + [[(100, 50, CIRCLE), (119, 50, CIRCLE)]] * 2)[-1] == [1, 2]


def test_neighbours_of_two_classes_are_not_exchanged(make):
    apart = [(94, 50, CIRCLE), (106, 50, SQUARE)]
    swapped = [(101, 50, CIRCLE), (99, 50, SQUARE)]  # each is nearer to where the other was
    assert follow(make(30), [apart] * 4 + [swapped])[-1] == [1, 2]


def test_the_class_of_an_object_may_be_wrong_for_some_frames(make):
    ids = follow(make(30), [[(50 + step, 50, SQUARE if step in (5, 6) else CIRCLE)] for step in range(10)])
    assert ids == [[None]] + [[1]] * 9


def test_what_was_lost_at_an_edge_has_left(make):
    leaving, nothing = [(188, 50, CIRCLE)], []
    for away, number in ((4, 1), (9, 2)):  # frames; 0.2 seconds are 6
        assert follow(make(30), [leaving] * 3 + [nothing] * away + [leaving] * 2)[-1] == [number]
    inside = [(150, 50, CIRCLE)]
    assert follow(make(30), [inside] * 3 + [nothing] * 9 + [inside] * 2)[-1] == [1]


def test_without_the_size_of_the_frame_there_are_no_edges(make):
    leaving = [(188, 50, CIRCLE)]
    assert follow(make(30), [leaving] * 3 + [[]] * 9 + [leaving] * 2, size=None)[-1] == [1]


def test_frames_that_are_seconds_apart_keep_the_ids(make):
    ids = follow(make(0.25), [[(100, 50, CIRCLE)]] * 3 + [[]] + [[(100, 50, CIRCLE)]], rate=0.25)
    assert ids == [[None], [1], [1], [], [1]]


def test_what_may_not_begin_gets_no_id_but_continues(make):
    association = make(30)
    box, one = np.array([[90.0, 40, 110, 60]]), np.ones(1)
    given = [association.update(box, one, [CIRCLE], one < 1, step / 30, SIZE) for step in range(4)]
    assert given == [[None]] * 4
    given = [association.update(box, one, [CIRCLE], np.array([step < 6]), step / 30, SIZE) for step in range(4, 9)]
    assert given == [[None], [1], [1], [1], [1]]


def test_of_objects_that_are_gone_only_the_votes_stay(make):
    association = make(30)
    follow(association, [[(100, 50, CIRCLE)]] * 3 + [[]] * 40 + [[(40, 50, SQUARE)]] * 3)
    assert list(association._ids.values()) == list(association._boxes) == list(association._times) == [2]
    assert association.votes == {1: {CIRCLE: 2}, 2: {SQUARE: 2}}
