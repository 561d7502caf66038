"""Which classes a model has, and what they are called."""

from __future__ import annotations

import argparse
from typing import Any

from datasets.annotated_images import AnnotatedImages
from util.checkpoint_entries import count_classes
from util.coco_names import thing_ids


def settle_classes(
    args: argparse.Namespace, checkpoint: dict[str, Any], datasets: list[AnnotatedImages]
) -> list[dict[str, Any]]:
    """Decide `args.num_classes`: the command line's, else the checkpoint's, else the annotations'.

    Where the categories tell things from stuff, `args.thing_ids` lists the things.

    Returns:
        The categories ({"id", "name"}) that the predictions mean: the data's, or the checkpoint's where it has them.

    Raises:
        ValueError: the data holds a category that the model has no class for.
        CheckpointError: the checkpoint holds no detector.
    """
    if args.num_classes is None:
        if checkpoint:
            args.num_classes = count_classes(checkpoint.get("model", {}), args.resume or args.frozen_weights)
        else:
            args.num_classes = max(dataset.num_classes for dataset in datasets)
    for dataset in datasets:
        dataset.check_classes(args.num_classes)
    categories = checkpoint.get("categories") or datasets[0].categories
    if any("isthing" in category for category in categories):
        args.thing_ids = thing_ids(categories)
    return categories
