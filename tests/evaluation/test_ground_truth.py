"""The ground truth of an evaluation: segmentations become codes once, so that all evaluators see the same masks."""

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from datasets.annotations.masks import segmentation_to_mask
from evaluation.coco_eval import CocoEvaluator
from evaluation.ground_truth import copy_ground_truth
from tests.helpers.coco_samples import assert_same_bits, needs_hotcoco

HEIGHT, WIDTH = 30, 40
SQUARE = [10, 5, 30, 5, 30, 25, 10, 25]
SEGMENTATIONS = [
    [SQUARE],
    [[10, 5, 10, 9], SQUARE],
    [],
    [[]],
    [[10, 5, 30, 25]],
    [SQUARE, [0, 0, 4, 0, 4, 4]],
    {"size": [HEIGHT, WIDTH], "counts": [30, 300, 870]},
    coco_mask.encode(np.asfortranarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8))),
]


def ground_truth(segmentations, **size):
    coco = COCO()
    fields = {"image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 20], "area": 400, "iscrowd": 0}
    coco.dataset = {
        "images": [{"id": 1} | ({"width": WIDTH, "height": HEIGHT} | size)],
        "annotations": [{"id": n, "segmentation": each} | fields for n, each in enumerate(segmentations, start=1)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def test_every_form_becomes_the_code_of_the_training_mask():
    original = ground_truth(SEGMENTATIONS)
    copied, _ = copy_ground_truth(original, {"bbox", "segmentation"})
    for number, segmentation in enumerate(SEGMENTATIONS, start=1):
        code = copied.anns[number]["segmentation"]
        assert isinstance(code["counts"], str)
        np.testing.assert_array_equal(coco_mask.decode(code), segmentation_to_mask(segmentation, HEIGHT, WIDTH))
        assert original.anns[number]["segmentation"] is segmentation


@needs_hotcoco
def test_both_evaluators_give_the_same_numbers_for_every_form():
    masks = torch.from_numpy(np.stack([segmentation_to_mask(each, HEIGHT, WIDTH) for each in SEGMENTATIONS]))
    scores = torch.linspace(0.9, 0.2, len(masks), dtype=torch.float64)
    found = {"masks": masks[:, None], "scores": scores, "labels": torch.ones(len(masks), dtype=torch.int64)}
    curves = []
    for backend in ("hotcoco", "pycocotools"):
        evaluator = CocoEvaluator(ground_truth(SEGMENTATIONS), ["segm"], backend=backend)
        evaluator.update({1: found})
        evaluator.accumulate()
        evaluator.summarize()
        curves.append(evaluator.coco_eval["segm"])
    assert 0.2 < curves[0].stats[0] < 1
    assert_same_bits(*curves)


@pytest.mark.parametrize("size", [{"width": None}, {"height": 0}])
def test_masks_need_the_size_of_the_image(size):
    with pytest.raises(ValueError, match="image 1 has no width and height"):
        CocoEvaluator(ground_truth([[SQUARE]], **size), ["segm"])
    CocoEvaluator(ground_truth([[SQUARE]], **size), ["bbox"])


@pytest.mark.parametrize(
    "segmentation", [SQUARE, [[1, 2, 3, 4, 5, float("nan")]], {"size": [40, 30], "counts": [1200]}]
)
def test_a_segmentation_that_cannot_be_drawn_is_named(segmentation):
    with pytest.raises(ValueError, match="annotation 2 of image 1 has a .*: correct it, or do not evaluate masks"):
        CocoEvaluator(ground_truth([[SQUARE], segmentation]), ["segm"])
