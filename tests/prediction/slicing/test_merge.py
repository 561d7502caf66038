"""Merging the detections of overlapping views, by class."""

import torch

from prediction.slicing.merge import merge

LEFT, RIGHT, WHOLE = (0, 0, 100, 100), (80, 0, 180, 100), (0, 0, 180, 100)


def merged(*found: tuple) -> list[tuple[list[float], list[int]]]:
    """Each of `found`: box, score, label, view, cut."""
    boxes, scores, labels, views, cut = (torch.tensor(column) for column in zip(*found))
    boxes, groups = merge(boxes.float(), scores, labels, views.float(), cut)
    return [(box.tolist(), group.tolist()) for box, group in zip(boxes, groups)]


def test_an_object_in_two_tiles_is_one_and_keeps_its_better_box():
    first, second = ([82, 20, 98, 40], 0.8, 1, LEFT, False), ([83, 21, 98, 40], 0.9, 1, RIGHT, False)
    assert merged(first, second) == [([83, 21, 98, 40], [1, 0])]


def test_classes_are_kept_apart():
    first, second = ([82, 20, 98, 40], 0.8, 1, LEFT, False), ([83, 21, 98, 40], 0.9, 2, RIGHT, False)
    assert [group for _, group in merged(first, second)] == [[1], [0]]


def test_a_cut_part_joins_the_whole_object_though_it_is_small_and_scores_higher():
    part, whole = ([80, 20, 100, 60], 0.95, 1, LEFT, True), ([82, 20, 150, 60], 0.6, 1, RIGHT, False)
    assert merged(part, whole) == [([82, 20, 150, 60], [1, 0])]


def test_an_object_that_no_tile_shows_whole_is_put_together():
    left, right = ([20, 20, 100, 60], 0.9, 1, LEFT, True), ([80, 22, 170, 61], 0.8, 1, RIGHT, True)
    assert merged(left, right) == [([20, 20, 170, 61], [0, 1])]


def test_parts_join_over_several_tiles():
    views = [(0, 0, 100, 100), (80, 0, 180, 100), (160, 0, 260, 100)]
    parts = [([10, 20, 100, 60], 0.9, 1, views[0], True), ([80, 20, 180, 60], 0.8, 1, views[1], True)]
    assert merged(*parts, ([160, 20, 250, 60], 0.7, 1, views[2], True)) == [([10, 20, 250, 60], [0, 1, 2])]


def test_neighbours_that_barely_reach_into_the_other_tile_stay_two():
    first, second = ([20, 20, 82, 60], 0.9, 1, LEFT, False), ([80, 20, 150, 60], 0.8, 1, RIGHT, True)
    assert len(merged(first, second)) == 2


def test_small_objects_inside_a_large_box_stay():
    large, small = ([0, 0, 180, 100], 0.99, 1, WHOLE, False), ([30, 30, 50, 50], 0.6, 1, LEFT, False)
    assert len(merged(large, small)) == 2


def test_a_view_tells_its_own_objects_apart():
    first, second = [82, 20, 98, 40], [88, 20, 104, 40]  # IoU 0.45
    assert len(merged((first, 0.8, 1, RIGHT, False), (second, 0.9, 1, RIGHT, False))) == 2
    assert len(merged((first, 0.8, 1, RIGHT, False), (second, 0.9, 1, (70, 0, 170, 100), False))) == 1


def test_a_cut_part_belongs_to_what_another_tile_shows_whole_whatever_its_class():
    part, whole = ([82, 20, 100, 60], 0.95, 2, LEFT, True), ([83, 15, 150, 62], 0.6, 1, RIGHT, False)
    assert merged(part, whole) == [([83, 15, 150, 62], [1, 0])]
    outside = ([20, 20, 100, 60], 0.95, 2, LEFT, True)  # a fifth of it is in the box
    assert len(merged(outside, whole)) == 2


def test_the_whole_picture_takes_only_parts_of_its_class():
    large = ([10, 10, 170, 90], 0.6, 1, WHOLE, False)
    assert len(merged(large, ([30, 20, 100, 60], 0.9, 2, LEFT, True))) == 2
    assert len(merged(large, ([30, 20, 100, 60], 0.9, 1, LEFT, True))) == 1


def test_the_box_of_a_tile_goes_before_that_of_the_whole_picture():
    whole, tile = ([20, 20, 90, 60], 0.99, 1, WHOLE, False), ([22, 20, 88, 62], 0.6, 1, LEFT, False)
    assert merged(whole, tile) == [([22, 20, 88, 62], [1, 0])]


def test_nothing_found_gives_nothing():
    boxes, groups = merge(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), torch.zeros(0, 4), torch.zeros(0).bool())
    assert boxes.shape == (0, 4) and groups == []
