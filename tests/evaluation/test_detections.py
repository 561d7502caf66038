import json
import pickle

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_util

from evaluation.coco_eval import CocoEvaluator
from evaluation.detections import pack, to_columns, unpack
from tests.helpers.coco_samples import HEIGHT, WIDTH, made_ground_truth


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


def test_masks_become_compressed_rles_of_the_pixels_above_a_half():
    evaluator = CocoEvaluator(made_ground_truth(), ["segm"])
    masks = torch.rand(2, 1, HEIGHT, WIDTH)
    result = {"masks": masks, "labels": torch.tensor([7, 1]), "scores": torch.tensor([0.5, 0.25])}
    results = evaluator.prepare_for_coco_segmentation({10: result})
    assert [set(entry) for entry in results] == [{"image_id", "category_id", "segmentation", "score"}] * 2
    decoded = np.stack([mask_util.decode(entry["segmentation"]) for entry in results])
    np.testing.assert_array_equal(decoded, masks[:, 0] > 0.5)
    json.dumps(results)


def test_masks_are_encoded_one_at_a_time_whether_bool_or_not(monkeypatch):
    evaluator = CocoEvaluator(made_ground_truth(), ["segm"])
    masks = torch.rand(3, 1, HEIGHT, WIDTH)
    rest = {"labels": torch.tensor([7, 1, 3]), "scores": torch.tensor([0.5, 0.25, 0.1])}
    shapes, encode = [], mask_util.encode
    monkeypatch.setattr(mask_util, "encode", lambda pixels: (shapes.append(pixels.shape), encode(pixels))[1])
    results = evaluator.prepare_for_coco_segmentation({10: {"masks": masks, **rest}})
    assert shapes == [(HEIGHT, WIDTH)] * 3  # copies of a hundred masks of a large image take hundreds of megabytes
    assert evaluator.prepare_for_coco_segmentation({10: {"masks": masks > 0.5, **rest}}) == results


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
def test_bad_predictions_are_refused_by_image_and_not_kept(change, error, message):
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


def made_columns(dtype: torch.dtype) -> dict:
    """Detections of three images with ids and numbers of all magnitudes; the second image has none."""
    random = torch.Generator().manual_seed(0)
    largest = 2**53 - 1
    predictions = {largest: {}, 7: {}, 3: {}}
    for image_id, count in ((largest, 4), (3, 9)):
        corner = torch.rand(count, 2, generator=random, dtype=dtype) * 300 - 20
        predictions[image_id] = {
            "boxes": torch.cat([corner, corner + torch.rand(count, 2, generator=random, dtype=dtype)], dim=1),
            "scores": torch.rand(count, generator=random, dtype=dtype) ** 20,
            "labels": torch.randint(0, 1000, (count,), generator=random),
            "masks": torch.rand(count, 1, 24, 32, generator=random, dtype=dtype),
            "keypoints": torch.rand(count, 17, 3, generator=random, dtype=dtype),
        }
    images = {image_id: {"height": 24, "width": 32} for image_id in predictions}
    return to_columns(predictions, ["bbox", "segm", "keypoints"], images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_packed_detections_are_restored_exactly(dtype):
    columns = made_columns(dtype)
    again = unpack(pickle.loads(pickle.dumps(pack(columns))))
    assert list(again) == list(columns)
    for image_id, detections in columns.items():
        assert again[image_id].rows.dtype == np.float64
        assert again[image_id].rows.tobytes() == detections.rows.tobytes()
        assert again[image_id].masks == detections.masks and again[image_id].keypoints == detections.keypoints
    assert unpack(pack({})) == {}


def test_packed_detections_are_a_few_arrays_of_24_bytes_per_detection():
    predictions = {
        image_id: {
            "boxes": torch.rand(100, 4).sort(dim=1).values * 640,
            "scores": torch.rand(100),
            "labels": torch.randint(0, 91, (100,)),
        }
        for image_id in range(50)
    }
    packed = pack(to_columns(predictions, ["bbox"], dict.fromkeys(range(50))))
    assert {type(value) for value in packed.values()} == {np.ndarray, bytes}
    assert len(pickle.dumps(packed)) < 24 * 5000 + 12 * 50 + 2000


def test_numbers_that_need_the_wide_type_keep_it():
    labels, score = torch.tensor([1.0, 2.0**40]), torch.tensor([0.1, 1e-300], dtype=torch.float64)
    boxes = torch.tensor([[0, 0, 1e300, 1], [0, 0, 2, 2]], dtype=torch.float64)
    columns = to_columns({1: {"boxes": boxes, "scores": score, "labels": labels}}, ["bbox"], {1: {}})
    assert unpack(pack(columns))[1].rows.tobytes() == columns[1].rows.tobytes()
