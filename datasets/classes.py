"""Which classes a model has, and what they are called."""

from __future__ import annotations

import argparse
from typing import Any

from datasets.annotated_images import AnnotatedImages
from util.coco_names import thing_ids
from util.errors import CheckpointError


def settle_classes(
    args: argparse.Namespace, checkpoint: dict[str, Any], datasets: list[AnnotatedImages]
) -> list[dict[str, Any]]:
    """Decide `args.num_classes`: the command line's, else the checkpoint's, else the annotations'.

    Where the categories tell things from stuff, `args.thing_ids` lists the things.

    Returns:
        The categories ({"id", "name"}) that the predictions mean: the data's, or the checkpoint's where it has them.

    Raises:
        ValueError: the data holds a category that the model has no class for.
    """
    if args.num_classes is None:
        if checkpoint:
            args.num_classes = _classes_in(checkpoint, args.resume or args.frozen_weights)
        else:
            args.num_classes = max(dataset.num_classes for dataset in datasets)
    for dataset in datasets:
        dataset.check_classes(args.num_classes)
    categories = checkpoint.get("categories") or datasets[0].categories
    if any("isthing" in category for category in categories):
        args.thing_ids = thing_ids(categories)
    return categories


def _classes_in(checkpoint: dict[str, Any], source: str) -> int:
    model = checkpoint.get("model", {})
    head = model.get("class_embed.weight", model.get("detr.class_embed.weight"))  # the latter with masks
    if head is None:
        raise CheckpointError(f"{source} holds no DETR (no class_embed.weight under 'model'): pass another file")
    return head.shape[0] - 1
