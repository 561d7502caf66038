import copy
import json
import sys
import types

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.coco_eval import CocoEvaluator
from tests.helpers.coco_samples import (
    HEIGHT,
    WIDTH,
    assert_same_bits,
    both_backends,
    evaluated,
    made_ground_truth,
    needs_hotcoco,
    perturbed,
)
from tests.helpers.paths import SHARED_DATA


def by_pycocotools_only(coco: COCO, predictions: dict) -> COCOeval:
    """The numbers computed from a results file with pycocotools only."""
    results = []
    for image_id, prediction in predictions.items():
        x0, y0, x1, y1 = prediction["boxes"].unbind(1)
        boxes = torch.stack([x0, y0, x1 - x0, y1 - y0], dim=1).tolist()
        for box, label, score in zip(boxes, prediction["labels"].tolist(), prediction["scores"].tolist(), strict=True):
            results.append({"image_id": image_id, "category_id": label, "bbox": box, "score": score})
    evaluation = COCOeval(coco, coco.loadRes(json.loads(json.dumps(results))), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


@both_backends
@pytest.mark.parametrize("seed", [0, 1])
def test_boxes_get_exactly_the_numbers_of_pycocotools(backend, seed):
    coco = made_ground_truth(seed)
    predictions = perturbed(coco, seed + 10)
    ours = evaluated(coco, predictions, backend)
    theirs = by_pycocotools_only(made_ground_truth(seed), predictions)
    assert 0.2 < ours.coco_eval["bbox"].stats[0] < 0.8
    assert len(ours.coco_eval["bbox"].stats) == 12 and ours.coco_eval["bbox"].stats.dtype == np.float64
    assert set(ours.coco_eval["bbox"].eval) == {"params", "counts", "date", "precision", "recall", "scores"}
    assert ours.backend == backend
    assert_same_bits(ours.coco_eval["bbox"], theirs)


def test_the_made_data_contain_every_difficult_case():
    coco = made_ground_truth()
    predictions = perturbed(coco)
    assert any(annotation["iscrowd"] for annotation in coco.anns.values())
    assert any(not coco.imgToAnns[image_id] for image_id in coco.imgs)
    assert any(not len(result["scores"]) for image_id, result in predictions.items() if coco.imgToAnns[image_id])
    assert set(coco.cats) - {annotation["category_id"] for annotation in coco.anns.values()} == {5}
    many = [result["scores"] for result in predictions.values() if len(result["scores"]) > 100]
    assert many and all(len(scores.unique()) < len(scores) for scores in many)


@needs_hotcoco
def test_masks_get_exactly_the_same_numbers_from_both_backends():
    coco = made_ground_truth(images=12)
    predictions = perturbed(coco, most=110, jitter=0.04, masks=True)
    hot = evaluated(coco, predictions, "hotcoco", ("segm", "bbox"))
    plain = evaluated(coco, predictions, "pycocotools", ("segm", "bbox"))
    assert 0.2 < hot.coco_eval["segm"].stats[0] < 0.8
    assert hot.coco_eval["segm"].stats[0] != hot.coco_eval["bbox"].stats[0]
    for kind in ("segm", "bbox"):
        assert_same_bits(hot.coco_eval[kind], plain.coco_eval[kind])


@needs_hotcoco
@pytest.mark.parametrize("name", ["coco_panoptic100", "bccd"])
def test_real_annotations_get_exactly_the_same_numbers_from_both_backends(name):
    path = SHARED_DATA / name / "annotations" / "instances_val2017.json"
    if not path.exists():
        pytest.skip(f"{name} is not available")
    coco = COCO(str(path))
    predictions = perturbed(coco, most=120, jitter=0.08)
    hot, plain = (evaluated(coco, predictions, backend).coco_eval["bbox"] for backend in ("hotcoco", "pycocotools"))
    assert 0.2 < hot.stats[0] < 0.8
    assert_same_bits(hot, plain)


@both_backends
def test_no_detection_at_all_scores_zero(backend):
    coco = made_ground_truth()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    masks = torch.zeros(0, 1, HEIGHT, WIDTH)
    evaluator = evaluated(coco, {i: {**empty, "masks": masks} for i in coco.imgs}, backend, ("bbox", "segm"))
    for kind in ("bbox", "segm"):
        np.testing.assert_array_equal(evaluator.coco_eval[kind].stats, np.zeros(12))


@both_backends
def test_changed_parameters_are_used(backend):
    coco = made_ground_truth()
    predictions = perturbed(coco)
    evaluator = CocoEvaluator(coco, ["bbox"], backend=backend)
    params = evaluator.coco_eval["bbox"].params
    params.iouThrs, params.catIds, params.maxDets = np.array([0.3, 0.5]), [3, 90], [1, 20]
    params.areaRng, params.areaRngLbl = [[0, 1e10], [0, 4000]], ["all", "little"]
    evaluator.update(predictions)
    evaluator.accumulate()
    theirs = COCOeval(coco, coco.loadRes(evaluator.prepare(predictions, "bbox")), "bbox")
    theirs.params = copy.deepcopy(params)
    theirs.evaluate()
    theirs.accumulate()
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(evaluator.coco_eval["bbox"].eval[name], theirs.eval[name], err_msg=name)
    assert evaluator.coco_eval["bbox"].eval["counts"] == [2, 101, 2, 2, 2]
    assert [row["id"] for row in evaluator.per_class()] == [3, 90]


@pytest.mark.parametrize(
    ("version", "fits"), [("1.2.9", False), ("1.3.0", True), ("1.10.0", True), ("2.4.0", False), ("0.9.1", False)]
)
def test_auto_uses_only_supported_versions_of_hotcoco(monkeypatch, version, fits):
    monkeypatch.setitem(sys.modules, "hotcoco", types.SimpleNamespace(__version__=version))
    assert CocoEvaluator(made_ground_truth(images=2), ["bbox"]).backend == ("hotcoco" if fits else "pycocotools")


def segmented(coco: COCO, images: int, seed: int = 0) -> dict[int, dict]:
    """The real masks of the first images moved, grown or lost, some with a wrong class, and false positives."""
    random = np.random.default_rng(seed)
    predictions = {}
    for image_id, image in list(coco.imgs.items())[:images]:
        masks, labels = [], []
        for annotation in coco.imgToAnns[image_id]:
            if random.random() < 0.15:
                continue
            mask = np.roll(coco.annToMask(annotation), random.integers(-3, 4, 2), axis=(0, 1)).astype(bool)
            if random.random() < 0.3:
                mask |= np.roll(mask, random.integers(-12, 13, 2), axis=(0, 1))
            masks.append(mask)
            wrong = random.random() < 0.1
            labels.append(int(random.choice(list(coco.cats))) if wrong else annotation["category_id"])
        blot = np.zeros((image["height"], image["width"]), dtype=bool)
        blot[20:90, 30:140] = True
        masks.append(blot)
        labels.append(1)
        predictions[image_id] = {
            "scores": torch.from_numpy(np.round(random.random(len(masks)), 2).astype(np.float32)),
            "labels": torch.tensor(labels),
            "masks": torch.from_numpy(np.stack(masks))[:, None],  # [n, 1, h, w], as from PostProcessSegm
        }
    return predictions


def masks_by_pycocotools_only(coco: COCO, predictions: dict) -> COCOeval:
    """The numbers of the masks computed from a results file with pycocotools only."""
    results = []
    for image_id, prediction in predictions.items():
        for mask, label, score in zip(*(prediction[name] for name in ("masks", "labels", "scores")), strict=True):
            rle = mask_util.encode(np.asfortranarray(mask[0].numpy().astype(np.uint8)))
            entry = {"size": rle["size"], "counts": rle["counts"].decode()}
            results.append(
                {"image_id": image_id, "category_id": int(label), "segmentation": entry, "score": score.item()}
            )
    evaluation = COCOeval(coco, coco.loadRes(results), "segm")
    evaluation.params.imgIds = sorted(predictions)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


@both_backends
def test_real_masks_get_exactly_the_numbers_of_pycocotools(backend):
    path = SHARED_DATA / "coco_panoptic100" / "annotations" / "instances_val2017.json"
    if not path.exists():
        pytest.skip("coco_panoptic100 is not available")
    coco = COCO(str(path))
    assert any(annotation["iscrowd"] for annotation in coco.anns.values())
    predictions = segmented(coco, images=24)
    ours = evaluated(coco, predictions, backend, ("segm",)).coco_eval["segm"]
    assert 0.2 < ours.stats[0] < 0.8
    assert_same_bits(ours, masks_by_pycocotools_only(coco, predictions))
