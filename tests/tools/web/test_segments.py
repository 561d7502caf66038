"""Segments of a panoptic map for the page: pixels, colours, and which detection each thing is."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from prediction.panoptic_map import PanopticMap
from prediction.predictor import Predictor
from prediction.result import Prediction
from tests.tools.web.serving import scene
from tools.web.segments import segments_of

SIZE = 40


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def prediction(masks: list[np.ndarray], labels: list[int], scores: list[float], ids: np.ndarray) -> Prediction:
    """Things of the classes 1 and 2, stuff of the class 3; the segments of `ids` have the classes id // 10."""
    segments = [
        {
            "id": int(one),
            "isthing": one < 30,
            "category_id": int(one) // 10,
            "name": "x",
            "area": int((ids == one).sum()),
        }
        for one in np.unique(ids[ids > 0])
    ]
    image, count = Image.new("RGB", (SIZE, SIZE)), len(masks)
    stacked = torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, SIZE, SIZE, dtype=torch.bool)
    columns = [torch.zeros(count, 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.int64), ["x"] * count]
    return Prediction(image, *columns, torch.arange(count) + 7, stacked, PanopticMap(ids, segments))


def test_each_thing_has_the_score_and_query_of_its_own_mask():
    ids = np.full((SIZE, SIZE), 30, np.int32)
    first, second, other = rectangle(0, 0, 20, 20), rectangle(10, 0, 30, 20), rectangle(0, 0, 30, 20)
    ids[first], ids[second] = 10, 11  # the second covers half of the first's mask
    found = segments_of(prediction([second, other, first], [1, 2, 1], [0.9, 0.8, 0.7], ids), 0.5)
    linked = {one["id"]: (one["query"], round(one["score"], 3)) for one in found if one["isthing"]}
    assert linked == {10: (9, 0.7), 11: (7, 0.9)}
    assert [set(one) & {"score", "query"} for one in found if not one["isthing"]] == [set()]


def test_a_mask_that_is_mostly_hidden_keeps_its_segment():
    ids = np.full((SIZE, SIZE), 30, np.int32)
    ids[:, :10] = 10  # the rest of its mask is behind the stuff; the segment of another detection has vanished
    hidden, other = rectangle(0, 0, 40, 40), rectangle(0, 0, 9, 40)
    found = segments_of(prediction([other, hidden], [1, 1], [0.9, 0.8], ids), 0.5)
    assert [one["query"] for one in found if one["isthing"]] == [8]


def test_a_thing_whose_detection_was_left_out_has_the_maps_threshold():
    ids = np.zeros((SIZE, SIZE), np.int32)
    ids[:10], ids[20:] = 10, 20
    found = segments_of(prediction([rectangle(0, 20, 40, 40)], [2], [0.9], ids), 0.85)
    assert [(one["id"], one["query"], round(one["score"], 3)) for one in found] == [(10, None, 0.85), (20, 7, 0.9)]
    assert [one["score"] for one in segments_of(prediction([], [], [], ids), 0.85)] == [0.85, 0.85]


def test_a_map_without_segments_is_an_empty_list():
    assert segments_of(prediction([], [], [], np.zeros((SIZE, SIZE), np.int32)), 0.85) == []


@pytest.mark.parametrize("number", range(6))
def test_segments_of_a_model_are_its_map_and_their_scores_those_of_its_objects(predictor: Predictor, number: int):
    found = predictor(Image.open(io.BytesIO(scene(number))), threshold=0.05)
    segments = segments_of(found, 0.85)
    drawn = np.zeros_like(found.panoptic.ids)
    for segment, info in zip(segments, found.panoptic.segments_info(), strict=True):
        assert info.items() <= segment.items()
        drawn += segment["id"] * coco_mask.decode(segment["segmentation"])
    assert (drawn == found.panoptic.ids).all()
    scores = dict(zip(found.queries.tolist(), found.scores.tolist()))
    things = [one for one in segments if one["isthing"]]
    assert [one["score"] for one in things] == [scores[one["query"]] for one in things]
    assert sorted(one["score"] for one in things) == sorted(score for score in scores.values() if score > 0.85)
