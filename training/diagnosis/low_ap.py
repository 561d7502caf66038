"""After a run whose AP is near 0: one line that offers `--overfit`, with the likeliest cause if it can be seen."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools.coco import COCO
from torch import nn

from datasets.annotated_images import AnnotatedImages
from training.diagnosis.causes import Evidence, find_causes
from training.diagnosis.evidence import look_at_data, look_at_detections, random_frozen_parts
from training.diagnosis.few_pictures import few_pictures
from training.validation import Validation

NEAR_ZERO = 0.01  # AP of boxes
PICTURES = 32  # training pictures that are looked at
EVALUATED = 200  # evaluated pictures whose detections are looked at
CONFIDENT = 0.3  # score of detections that count


def offer_overfit(
    args: argparse.Namespace,
    model: nn.Module,
    dataset: AnnotatedImages,
    validation: Validation,
    stats: Mapping[str, Any],
    losses: Sequence[float],
) -> str | None:
    """A line for the user if the last evaluation's AP is near 0, else None. Only for the main process.

    Args:
        args: the settings of the run.
        model: the model itself.
        dataset: the training part; some of its pictures are read.
        validation: after its last evaluation.
        stats: of that evaluation, as `Validation.run` returns them.
        losses: of the training, one for each epoch.
    """
    ap = stats["coco_eval_bbox"][0] if "coco_eval_bbox" in stats else -1
    if not 0 <= ap < NEAR_ZERO:  # -1: there was nothing to find
        return None
    offer = f"AP is near 0 ({ap:.4f}): to find out why, run the same command with --overfit 8"
    try:
        causes = find_causes(_evidence(args, model, dataset, validation, losses))
    except (OSError, ValueError):  # a picture that cannot be read now is no reason to fail after the run
        return offer
    return f"{offer}; likeliest cause so far [{causes[0].name}]: {causes[0].sentence}" if causes else offer


def _evidence(
    args: argparse.Namespace,
    model: nn.Module,
    dataset: AnnotatedImages,
    validation: Validation,
    losses: Sequence[float],
) -> Evidence:
    truth, evaluator = validation.ground_truth, validation.evaluation.coco
    annotations = [a for image_id in evaluator.img_ids[:EVALUATED] for a in truth.imgToAnns[image_id]]
    rows = evaluator.all_detections.rows
    return Evidence(
        args.num_queries,
        args.lr,
        args.lr_backbone,
        args.val_size,
        data=look_at_data(few_pictures(dataset, args, PICTURES)),
        classes=_classes(dataset, truth),
        names={category["id"]: category["name"] for category in dataset.categories},
        found=look_at_detections(rows, annotations, CONFIDENT),
        frozen=random_frozen_parts(model),
        losses=losses,
    )


def _classes(dataset: AnnotatedImages, truth: COCO) -> tuple[set[int], set[int]]:
    """Ids of the classes that have objects, in training and in evaluation."""
    rows = dataset.annotation_rows()  # the third number is the category id, the fourth marks crowds
    train = set(rows[rows[:, 3] == 0, 2].astype(int).tolist()) if len(rows) else set()
    return train, {annotation["category_id"] for annotation in truth.anns.values() if not annotation["iscrowd"]}
