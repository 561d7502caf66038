"""The evaluator beside the published way of using pycocotools: processor time of one evaluation, on one thread.

    python -m benchmarks.evaluator [--images 300 5000] [--boxes 100] [--repeat 3]

Synthetic ground truth and detections with COCO's proportions: 80 classes, about 7 objects an image, every query of the
model returned. Both are built once beforehand, as in a training run. An evaluation is all that follows the model: the
batches passed to `update`, then `synchronize_between_processes`, `accumulate` and `summarize`.
"""

import argparse
import copy
import gc
import io
import os
import statistics
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.common.machine import describe_machine
from benchmarks.common.results import Measurement, Row, write_rows
from evaluation.coco_eval import CocoEvaluator

CLASSES = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]  # COCO's ids
BATCH = 2  # images, the published default
Batches = list[dict[int, dict[str, torch.Tensor]]]


def made_data(images: int, boxes: int, seed: int = 0) -> tuple[COCO, Batches]:
    """Ground truth, and batches of detections: about half of the objects are found, the rest are weak guesses."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(CLASSES) + 1)  # a few classes are much more frequent than the others
    width, height, annotations, results = 640, 480, [], {}
    for image_id in range(1, images + 1):
        n = min(int(rng.geometric(1 / 7.3)), 60)
        sides = np.exp(rng.uniform(np.log(8), np.log(400), (n, 2))).clip(max=[width - 1, height - 1])
        found = np.concatenate([rng.uniform(0, [width, height] - sides), sides], axis=1)  # [n, 4] xywh
        labels = rng.choice(CLASSES, n, p=weights / weights.sum())
        for box, label in zip(found.round(2).tolist(), labels.tolist()):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": label, "bbox": box}
                | {"area": 0.6 * box[2] * box[3], "iscrowd": int(rng.random() < 0.01)}
            )
        near = rng.integers(0, n, boxes)  # each query is near one object
        guess = found[near] + rng.normal(0, 0.15, (boxes, 4)) * np.tile(found[near, 2:], 2)
        guess[:, 2:] = guess[:, 2:].clip(min=1)
        right = rng.random(boxes) < 0.5
        results[image_id] = {
            "boxes": torch.tensor(np.concatenate([guess[:, :2], guess[:, :2] + guess[:, 2:]], 1), dtype=torch.float32),
            "labels": torch.tensor(np.where(right, labels[near], rng.choice(CLASSES, boxes))),
            "scores": torch.tensor(rng.beta(0.4, 3, boxes), dtype=torch.float32),
        }
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i, "width": width, "height": height} for i in results],
        "annotations": annotations,
        "categories": [{"id": label, "name": f"class {label}"} for label in CLASSES],
    }
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    items = list(results.items())
    return coco, [dict(items[i : i + BATCH]) for i in range(0, images, BATCH)]


def ours(coco: COCO) -> Callable[[Batches], np.ndarray]:
    """This project's evaluator, with hotcoco where it is installed."""
    evaluator = CocoEvaluator(coco, ["bbox"])

    def evaluate(batches: Batches) -> np.ndarray:
        evaluator.reset()
        for batch in batches:
            evaluator.update(batch)
        evaluator.synchronize_between_processes()
        evaluator.accumulate()
        evaluator.summarize()
        return evaluator.coco_eval["bbox"].stats

    return evaluate


def published(coco: COCO) -> Callable[[Batches], np.ndarray]:
    """pycocotools as the published code uses it: results as dicts, loaded and matched batch by batch."""
    own = copy.deepcopy(coco)

    def evaluate(batches: Batches) -> np.ndarray:
        coco_eval, parts, image_ids = COCOeval(own, iouType="bbox"), [], []
        for batch in batches:
            results = []
            for image_id, result in batch.items():
                x0, y0, x1, y1 = result["boxes"].unbind(1)
                boxes = torch.stack((x0, y0, x1 - x0, y1 - y0), dim=1).tolist()
                scores, labels = result["scores"].tolist(), result["labels"].tolist()
                results += [
                    {"image_id": image_id, "category_id": labels[k], "bbox": box, "score": scores[k]}
                    for k, box in enumerate(boxes)
                ]
            coco_eval.cocoDt = own.loadRes(results)
            coco_eval.params.imgIds = sorted(batch)
            coco_eval.evaluate()
            shape = (len(coco_eval.params.catIds), len(coco_eval.params.areaRng), len(batch))
            parts.append(np.asarray(coco_eval.evalImgs, dtype=object).reshape(shape))
            image_ids += sorted(batch)
        coco_eval.evalImgs = np.concatenate(parts, axis=2).ravel().tolist()
        coco_eval.params.imgIds = image_ids
        coco_eval._paramsEval = copy.deepcopy(coco_eval.params)
        coco_eval.accumulate()
        coco_eval.summarize()
        return coco_eval.stats

    return evaluate


def seconds(evaluate: Callable[[Batches], np.ndarray], batches: Batches) -> tuple[float, np.ndarray]:
    """(processor seconds of one evaluation, its 12 numbers)."""
    gc.collect()  # what the other variant has left
    with redirect_stdout(io.StringIO()):
        start = time.process_time()
        stats = evaluate(batches)
        return time.process_time() - start, stats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[300, 5000])
    parser.add_argument("--boxes", type=int, default=100, help="detections of each image")
    parser.add_argument("--repeat", type=int, default=3, help="interleaved repetitions; the medians are shown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    row = Row("evaluator", "Evaluator beside pycocotools as the published code uses it, processor time, one thread")
    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # hotcoco's threads
    for images in args.images:
        coco, batches = made_data(images, args.boxes)
        variants = {"published": published(coco), "ours": ours(coco)}
        for run in variants.values():
            seconds(run, batches[:1])  # what happens once in a training run: imports, and the ground truth is loaded
        runs = [{name: seconds(run, batches) for name, run in variants.items()} for _ in range(args.repeat)]
        assert all(np.array_equal(run["published"][1], run["ours"][1]) for run in runs), "the numbers differ"
        slow, fast = (statistics.median(run[name][0] for run in runs) for name in variants)
        print(f"{images} images x {args.boxes}: published {slow:.3f} s, ours {fast:.4f} s, {slow / fast:.1f} times")
        work = f"{images:,} images × {args.boxes} boxes"
        for name, found in (("published", "pycocotools"), ("ours", "as built")):
            row.measurements.append(Measurement(f"{found}, {work}", [[run[name][0]] for run in runs]))
        row.measurements[-1].values["times faster than pycocotools"] = round(slow / fast, 1)
        row.headline += f"{', ' if row.headline else ''}pycocotools {slow / fast:.1f}× ({work})"
    if args.json:
        row.machine = describe_machine()
        write_rows(args.json, [row])


if __name__ == "__main__":
    main()
