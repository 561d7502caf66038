"""COCO's matching of all images at once, compared with its definition as loops."""

import numpy as np
import pytest
from pycocotools import mask as mask_util

from evaluation import matching
from evaluation.matching import IGNORED, UNMATCHED, match


def made_boxes(seed: int, groups: int = 6, detections: int = 60, objects: int = 30) -> dict:
    """Crowded scenes on a coarse grid, so that scores, boxes and overlaps tie; group 0 has only detections."""
    random = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        return np.concatenate([random.integers(0, 5, (count, 2)), random.integers(3, 7, (count, 2))], 1) * 7.3

    return {
        "groups": random.integers(0, groups, detections) * 10,
        "boxes": boxes(detections),
        "scores": random.integers(0, 8, detections) / 8,
        "object_groups": random.integers(1, groups + 2, objects) * 10,
        "object_boxes": boxes(objects),
        "crowd": random.random(objects) < 0.25,
    }


def matched_by_loops(
    groups, boxes, scores, object_groups, object_boxes, crowd, iou=0.5, max_detections=None
) -> list[int]:
    """COCO's rule, one detection at a time."""
    result = [UNMATCHED] * len(groups)
    for group in set(groups.tolist()):
        own = sorted((d for d in range(len(groups)) if groups[d] == group), key=lambda d: -scores[d])
        free = [g for g in range(len(object_groups)) if object_groups[g] == group]
        for rank, d in enumerate(own):
            if max_detections is not None and rank >= max_detections:
                result[d] = IGNORED
                continue
            overlaps = {
                g: mask_util.iou(boxes[d][None], object_boxes[g][None], [int(crowd[g])])[0, 0]
                for g in range(len(object_groups))
                if object_groups[g] == group
            }
            candidates = [g for g in free if not crowd[g] and overlaps[g] >= iou]
            if candidates:
                result[d] = max(candidates, key=lambda g: (overlaps[g], g))
                free.remove(result[d])
            elif any(crowd[g] and overlaps[g] >= iou for g in overlaps):
                result[d] = IGNORED
    return result


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limits", [{}, {"iou": 0.25}, {"max_detections": 7}])
def test_matches_equal_the_definition(seed, limits):
    scene = made_boxes(seed)
    matches = match(**scene, **limits)
    assert matches.tolist() == matched_by_loops(**scene, **limits)
    assert {UNMATCHED, IGNORED} < set(matches.tolist()) and matches.max() > 0


def test_overlaps_are_computed_in_chunks(monkeypatch):
    scene = made_boxes(5)
    expected = match(**scene)
    monkeypatch.setattr(matching, "MAX_PAIRS", 3)
    np.testing.assert_array_equal(match(**scene), expected)


def test_equal_scores_go_by_order_and_equal_overlaps_to_the_later_object():
    scene = {"groups": np.zeros(3, int), "boxes": np.array([[0, 0, 10, 10]] * 3), "scores": np.array([0.5, 0.5, 0.9])}
    objects = {"object_groups": np.zeros(2, int), "object_boxes": np.array([[0, 0, 10, 8], [0, 2, 10, 8]])}
    assert match(**scene, **objects, crowd=np.zeros(2, bool)).tolist() == [0, UNMATCHED, 1]


@pytest.mark.parametrize("detections", [0, 4])
@pytest.mark.parametrize("objects", [0, 4])
def test_nothing_matches_nothing(detections, objects):
    scene = made_boxes(0, detections=detections, objects=objects)
    scene["object_groups"] += 1000
    assert match(**scene, max_detections=100).tolist() == [UNMATCHED] * detections


def test_boxes_that_only_touch_or_are_far_away_or_have_no_area_match_nothing():
    boxes = np.array([[0, 0, 10, 10], [5, 5, 0, 0], [5, 5, -3, 4], [30, 20, 10, 10]], dtype=float)
    objects = np.array([[10, 0, 10, 10], [5, 5, 0, 0]], dtype=float)
    groups, crowd = np.zeros(4, int), np.array([False, True])
    assert match(groups, boxes, np.ones(4), groups[:2], objects, crowd, iou=0.01).tolist() == [UNMATCHED] * 4
