import json

import numpy as np
import pytest
import torch
from coco_samples import HEIGHT, WIDTH, made_ground_truth
from pycocotools import mask as mask_util

from datasets.coco_eval import CocoEvaluator


def test_detections_become_results_with_corner_width_and_height():
    evaluator = CocoEvaluator(made_ground_truth(), ["bbox"])
    result = {"boxes": torch.tensor([[1.0, 2, 4, 8]]), "labels": torch.tensor([7]), "scores": torch.tensor([0.5])}
    expected = [{"image_id": 10, "category_id": 7, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.5}]
    assert evaluator.prepare({10: result, 13: {}}, "bbox") == expected
    assert evaluator.prepare_for_coco_detection({10: result}) == expected


def test_widths_are_rounded_in_the_precision_of_the_model():
    evaluator = CocoEvaluator(made_ground_truth(), ["bbox"])
    boxes = torch.tensor([[0.1, 0.2, 100.7, 50.3], [1 / 3, 2 / 3, 200.1, 99.9]])
    for boxes_given in (boxes, boxes.double() / 3):
        result = {"boxes": boxes_given, "labels": torch.tensor([7, 1]), "scores": torch.tensor([0.3, 0.7])}
        x0, y0, x1, y1 = boxes_given.unbind(1)
        expected = torch.stack([x0, y0, x1 - x0, y1 - y0], dim=1).tolist()
        assert [entry["bbox"] for entry in evaluator.prepare({10: result}, "bbox")] == expected


def test_masks_become_compressed_rles_of_the_pixels_over_a_half():
    evaluator = CocoEvaluator(made_ground_truth(), ["segm"])
    masks = torch.rand(2, 1, HEIGHT, WIDTH)
    result = {"masks": masks, "labels": torch.tensor([7, 1]), "scores": torch.tensor([0.5, 0.25])}
    results = evaluator.prepare_for_coco_segmentation({10: result})
    assert [set(entry) for entry in results] == [{"image_id", "category_id", "segmentation", "score"}] * 2
    decoded = np.stack([mask_util.decode(entry["segmentation"]) for entry in results])
    np.testing.assert_array_equal(decoded, masks[:, 0] > 0.5)
    json.dumps(results)


def test_half_precision_is_raised_before_widths_are_computed():
    evaluator = CocoEvaluator(made_ground_truth(), ["bbox"])
    boxes = torch.tensor([[257.0, 3, 300, 100], [0.1, 0.1, 250, 200]], dtype=torch.bfloat16)
    result = {"boxes": boxes, "labels": torch.tensor([7, 1]), "scores": torch.tensor([0.3, 0.7], dtype=torch.bfloat16)}
    x0, y0, x1, y1 = boxes.float().unbind(1)
    expected = torch.stack([x0, y0, x1 - x0, y1 - y0], dim=1).tolist()
    assert [entry["bbox"] for entry in evaluator.prepare({10: result}, "bbox")] == expected


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": torch.tensor([1])}, ValueError, "predictions for image 10 differ in length"),
        ({"boxes": torch.tensor([[0.0, 0, 9, 9], [0, 0, torch.nan, 9]])}, FloatingPointError, "image 10 .* class 3"),
        ({"scores": torch.tensor([torch.inf, 0.5])}, FloatingPointError, "image 10 .* class 1 .* score inf"),
        ({"masks": torch.zeros(2, 1, WIDTH, HEIGHT)}, ValueError, r"masks of image 10 .*\(h, w\) = \(240, 320\)"),
        ({"masks": torch.zeros(2, 2, HEIGHT, WIDTH)}, ValueError, "masks of image 10 have shape"),
    ],
)
def test_bad_predictions_name_the_image_and_leave_nothing_behind(change, error, message):
    evaluator = CocoEvaluator(made_ground_truth(images=2), ["bbox", "segm"])
    good = {
        "boxes": torch.tensor([[0.0, 0, 9, 9], [0, 0, 8, 8]]),
        "labels": torch.tensor([1, 3]),
        "scores": torch.tensor([0.25, 0.5]),
        "masks": torch.zeros(2, 1, HEIGHT, WIDTH),
    }
    with pytest.raises(error, match=message):
        evaluator.update({10: {**good, **change}})
    with pytest.raises(ValueError, match="image 11, but the ground truth has no such image"):
        evaluator.update({11: good})
    with pytest.raises(ValueError, match="image 10 lack masks"):
        evaluator.update({10: {key: value for key, value in good.items() if key != "masks"}})
    assert evaluator.img_ids == []
    evaluator.update({10: good})
    assert evaluator.img_ids == [10]
