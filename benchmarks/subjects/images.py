"""A data set of many images, in a fresh process: `python -m benchmarks.subjects.images JSON`.

With the task "index" the data set is built from an annotation file that lies, with its images, in the folder `path`;
with "peer_index" pycocotools reads the same file. With "evaluation" random detections are evaluated. `batch` is the
number of images, `boxes` that of the objects, or detections, of an image.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO

from benchmarks.common.work import Work, read_work, repeated, report
from datasets.coco import CocoDetection
from evaluation.coco_eval import CocoEvaluator

CLASSES = range(1, 81)
WIDTH, HEIGHT = 640, 480
BATCH = 1000  # images whose detections are given to the evaluator at once


def annotations_of(images: int, objects: int) -> dict[str, object]:
    """COCO's annotation format: random boxes without segmentations."""
    rng = np.random.default_rng(0)
    sides = rng.uniform(8, 200, (images * objects, 2)).round(2)
    corners = (rng.random((images * objects, 2)) * ([WIDTH, HEIGHT] - sides)).round(2)
    boxes = np.concatenate([corners, sides], axis=1).tolist()
    labels = rng.integers(1, len(CLASSES) + 1, images * objects).tolist()
    return {
        "info": {"description": "random boxes"},
        "images": [
            {"id": i, "file_name": f"{i:012d}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(1, images + 1)
        ],
        "annotations": [
            {"id": k + 1, "image_id": k // objects + 1, "category_id": label, "bbox": box, "area": box[2] * box[3]}
            | {"iscrowd": 0}
            for k, (label, box) in enumerate(zip(labels, boxes))
        ],
        "categories": [{"id": label, "name": f"class {label}"} for label in CLASSES],
    }


LINKS = 50_000  # to one file; file systems allow some 65,000


def draw(work: Work) -> list[float]:
    """Write the annotation file, and the images as links to a few."""
    folder = Path(work.path)
    (folder / "images").mkdir(parents=True)
    (folder / "annotations.json").write_text(json.dumps(annotations_of(work.batch, work.boxes)), encoding="utf-8")
    for index in range(1, work.batch + 1):
        path = folder / "images" / f"{index:012d}.jpg"
        if index % LINKS == 1:
            file = path
            Image.new("RGB", (WIDTH, HEIGHT)).save(file)
        else:
            os.link(file, path)
    return []


def index(work: Work) -> list[float]:
    """Seconds to build the data set."""
    folder = Path(work.path)
    return repeated(work, lambda: CocoDetection(folder / "images", folder / "annotations.json", None, False))


def peer_index(work: Work) -> list[float]:
    """Seconds of pycocotools to read the annotation file alone."""
    with redirect_stdout(io.StringIO()):
        return repeated(work, lambda: COCO(str(Path(work.path) / "annotations.json")))


def evaluation(work: Work) -> list[float]:
    """Seconds to evaluate detections, 8 objects an image being there; ground truth is indexed beforehand."""
    coco = COCO()
    coco.dataset = annotations_of(work.batch, 8)
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluator = CocoEvaluator(coco, ["bbox"])
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(BATCH, work.boxes, 2, generator=generator) * 300
    sides = torch.rand(BATCH, work.boxes, 2, generator=generator) * 150 + 8
    boxes = torch.cat([corners, corners + sides], dim=2)
    labels = torch.randint(1, 81, (BATCH, work.boxes), generator=generator)
    scores = torch.rand(BATCH, work.boxes, generator=generator)
    ids = list(coco.imgs)

    def evaluate() -> None:
        evaluator.reset()
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            results = [{"boxes": b, "labels": n, "scores": s} for b, n, s in zip(boxes, labels, scores)]
            evaluator.update(dict(zip(part, results)))
        evaluator.synchronize_between_processes()
        evaluator.accumulate()
        evaluator.summarize()

    with redirect_stdout(io.StringIO()):
        return repeated(work, evaluate)


TASKS: dict[str, Callable[[Work], list[float]]] = {
    "draw": draw,
    "index": index,
    "peer_index": peer_index,
    "evaluation": evaluation,
}


def main() -> None:
    """Do the work of the command line."""
    work = read_work()
    report(work, TASKS[work.task](work))


if __name__ == "__main__":
    main()
