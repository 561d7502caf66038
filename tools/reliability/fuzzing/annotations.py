"""Damaged and odd annotation files, and what training and evaluation do with them."""

from __future__ import annotations

import copy
import json
import random
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from datasets.annotations.picture_checks import check_pictures
from datasets.coco import CocoDetection, make_coco_transforms
from datasets.targets import check_targets
from evaluation.coco_eval import CocoEvaluator, format_per_class
from evaluation.ground_truth import copy_ground_truth
from tools.reliability.fuzzing.exports import odd_export
from tools.reliability.fuzzing.images import HEIGHT, WIDTH, picture
from tools.reliability.fuzzing.mutations import mutate_bytes, mutate_tree
from util.logging import get_logger

CATEGORIES = [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 3, "name": "dog"}]


@cache
def document() -> dict[str, Any]:
    """A small instances file with every kind of segmentation."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[4:9, 5:20] = 1
    compressed = coco_mask.encode(mask)
    runs = np.diff(np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=0, append=1)), prepend=0).tolist()
    size = [HEIGHT, WIDTH]
    segmentations = [
        [[5, 4, 20, 4, 20, 9, 5, 9]],
        {"size": size, "counts": runs},
        {"size": size, "counts": compressed["counts"].decode()},
        [[1.5, 1.5, 9, 1, 9, 9], [2, 2, 3, 2, 3, 3, 2, 3]],
    ]
    names = ("0.png", "1.jpg", "in/2.png")
    images = [{"id": 7 + i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names)]
    objects = [
        {
            "id": 100 + i,
            "image_id": 7 + i % 2,
            "category_id": (1, 3)[i % 2],
            "bbox": [5, 4, 15.5, 5],
            "area": 70.25,
            "iscrowd": int(i == 1),
            "segmentation": segmentation,
            "keypoints": [5, 6, 2, 7, 8, 1],
            "num_keypoints": 2,
        }
        for i, segmentation in enumerate(segmentations)
    ]
    return {"info": {"year": 2024}, "licenses": [], "images": images, "annotations": objects, "categories": CATEGORIES}


def make_annotations(rng: random.Random) -> bytes:
    """A damaged file, or one as another tool writes it."""
    way = rng.random()
    if way < 0.3:
        return odd_export(copy.deepcopy(document()), rng)
    whole = json.dumps(document()).encode()
    if way < 0.55:
        return mutate_bytes(whole, [whole, b"[" * 5000, b'{"a":' * 5000], rng)
    text = json.dumps(mutate_tree(document(), rng))
    if rng.random() < 0.05:
        text = text.replace(', "', ', "id": 5, "', rng.randrange(1, 9))  # a duplicate key, which a dict cannot hold
    return text.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16")))


def read_annotations(path: Path) -> None:
    """Read a data set, all its samples, and evaluate detections on it."""
    folder = path.parent / "images"
    if not folder.is_dir():
        (folder / "in").mkdir(parents=True)
        for image in document()["images"]:
            picture().save(folder / image["file_name"])
    choice = random.Random(zlib.crc32(path.read_bytes()))
    if choice.random() < 0.5:
        transforms = make_coco_transforms("train", train_sizes=(16, 24), max_size=40)
    else:
        transforms = make_coco_transforms("val", val_size=16)
    masks, skip = choice.random() < 0.5, choice.random() < 0.3
    dataset = CocoDetection(folder, path, transforms, masks, skip_bad_images=skip)
    check_pictures(dataset, every=choice.random() < 0.5)
    if masks:
        copy_ground_truth(dataset.coco, ("bbox", "segmentation"))
    dataset.check_classes(dataset.num_classes)
    kinds = ["bbox", "segm"] if masks and choice.random() < 0.5 else ["bbox"]
    evaluator = CocoEvaluator(dataset.coco, kinds, backend=choice.choice(("auto", "pycocotools")))
    for index in range(len(dataset)):
        _, target = dataset[index]
        check_targets([target], dataset.num_classes)
        found = {"boxes": target["boxes"] * 16, "labels": target["labels"], "scores": target["area"].sigmoid()}
        if "segm" in kinds:
            found["masks"] = torch.ones(len(found["labels"]), 1, *target["orig_size"].tolist(), dtype=torch.uint8)
        evaluator.update({int(target["image_id"]): found})
    if len(dataset):
        evaluator.synchronize_between_processes()
        evaluator.accumulate()
        evaluator.summarize()
        get_logger().info(format_per_class(evaluator.per_class()))
