"""Made ground truth and detections for tests of the evaluation, and functions that evaluate them."""

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation import hotcoco
from evaluation.coco_eval import CocoEvaluator

HEIGHT, WIDTH = 240, 320
needs_hotcoco = pytest.mark.skipif(hotcoco.unavailable_reason() is not None, reason=f"needs {hotcoco.REQUIREMENT}")
both_backends = pytest.mark.parametrize("backend", [pytest.param("hotcoco", marks=needs_hotcoco), "pycocotools"])


def coco_of(dataset: dict) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def rectangle(x: float, y: float, w: float, h: float) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def made_ground_truth(seed: int = 0, images: int = 24) -> COCO:
    """Objects of all sizes and some crowds; every sixth image is empty; category 5 has no objects."""
    random = np.random.default_rng(seed)
    annotations = []
    for image_id in range(10, 10 + 3 * images, 3):
        for _ in range(0 if image_id % 18 == 10 else random.integers(1, 9)):
            w, h = random.integers(8, 150, 2).tolist()
            x, y = int(random.integers(0, WIDTH - w)), int(random.integers(0, HEIGHT - h))
            crowd = int(random.random() < 0.12)
            segmentation = rectangle(x, y, w, h)
            if crowd:
                pixels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
                pixels[y : y + h, x : x + w] = 1
                runs = np.flatnonzero(np.diff(pixels.ravel(order="F"), prepend=0, append=1 - pixels[-1, -1]))
                counts = np.diff(runs, prepend=0).tolist()
                segmentation = {"size": [HEIGHT, WIDTH], "counts": counts}
            annotations.append(
                {
                    "id": 100 + len(annotations),
                    "image_id": image_id,
                    "category_id": int(random.choice([1, 3, 7, 90])),
                    "bbox": [x, y, w, h],
                    "area": float(w * h) - 0.5,
                    "iscrowd": crowd,
                    "segmentation": segmentation,
                }
            )
    return coco_of(
        {
            "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(10, 10 + 3 * images, 3)],
            "categories": [{"id": i, "name": f"class {i}"} for i in (90, 1, 3, 5, 7)],
            "annotations": annotations,
        }
    )


def perturbed(coco: COCO, seed: int = 1, most: int = 130, jitter: float = 0.06, masks: bool = False) -> dict[int, dict]:
    """Shifted ground truth, duplicates and false positives with tied scores; every seventh image has no detections,
    every fourth has `most`."""
    random = np.random.default_rng(seed)
    categories = [*coco.cats, 2]  # 2 is not a category of the ground truth
    predictions = {}
    for number, (image_id, image) in enumerate(coco.imgs.items()):
        boxes, labels, scores = [], [], []
        for annotation in coco.imgToAnns[image_id]:
            x, y, w, h = annotation["bbox"]
            for _ in range(random.integers(0, 4)):
                x0, y0, x1, y1 = np.array([x, y, x + w, y + h]) + random.normal(0, jitter, 4) * [w, h, w, h]
                boxes.append([x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)])
                wrong = random.random() < 0.1
                labels.append(random.choice(categories) if wrong else annotation["category_id"])
                scores.append(random.beta(4, 2))
        while len(boxes) < (most if number % 4 == 1 else random.integers(3, 12)):
            x, y = random.random(2) * [image["width"], image["height"]]
            boxes.append([x, y, x + random.uniform(2, 150), y + random.uniform(2, 150)])
            labels.append(random.choice(categories))
            scores.append(random.beta(2, 4))
        order = random.permutation(len(boxes))[: 0 if number % 7 == 3 else None]
        predictions[image_id] = {
            "boxes": torch.tensor(np.array(boxes)[order].reshape(-1, 4), dtype=torch.float32),
            "labels": torch.tensor(np.array(labels)[order], dtype=torch.int64),
            "scores": torch.tensor(np.round(np.array(scores)[order], 2), dtype=torch.float32),
        }
        if masks:
            predictions[image_id]["masks"] = drawn(predictions[image_id]["boxes"], image["height"], image["width"])
    return predictions


def drawn(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Masks [n, 1, height, width] of the boxes, with a corner cut off so that mask and box differ in area."""
    y, x = torch.arange(height)[:, None], torch.arange(width)
    x0, y0, x1, y1 = boxes[:, :, None, None].unbind(1)
    inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    return (inside & ((x - x0) / (x1 - x0) + (y - y0) / (y1 - y0) > 0.25))[:, None]


def evaluated(coco: COCO, predictions: dict, backend: str, kinds=("bbox",), batch: int = 5) -> CocoEvaluator:
    evaluator = CocoEvaluator(coco, list(kinds), backend=backend)
    items = list(predictions.items())
    for start in range(0, len(items), batch):
        evaluator.update(dict(items[start : start + batch]))
    evaluator.synchronize_between_processes()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator


def assert_same_bits(ours: COCOeval, theirs: COCOeval) -> None:
    for name in ("precision", "recall", "scores"):
        assert ours.eval[name].dtype == theirs.eval[name].dtype == np.float64
        np.testing.assert_array_equal(ours.eval[name], theirs.eval[name], err_msg=name)
    assert ours.eval["counts"] == theirs.eval["counts"]
    np.testing.assert_array_equal(ours.stats, theirs.stats)
