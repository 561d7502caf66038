"""A checkpoint → a detector that is ready to predict."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from models import build_model
from util.arguments import get_args_parser
from util.checkpoint import CheckpointError, load_checkpoint, load_weights
from util.coco_names import COCO_NUM_CLASSES, PANOPTIC_NUM_CLASSES, coco_categories, panoptic_categories, thing_ids
from util.compute.device import resolve_device
from util.loading.checkpoint_entries import count_classes, detector_weights, model_of
from util.loading.saved_settings import check_settings, infer_settings, read_settings
from util.settings import DETECTOR, INPUT, SCHEDULE, TRAINING, names_that_touch

# Everything but how a run is carried out
_READ = names_that_touch(DETECTOR, INPUT, TRAINING, SCHEDULE)


class Detector(NamedTuple):
    """A model with weights, in evaluation mode, with its settings and categories."""

    model: nn.Module
    postprocessors: dict[str, nn.Module]
    args: argparse.Namespace  # all settings of the command line, with the checkpoint's values
    categories: list[dict[str, Any]]  # {"id", "name"}, sorted by id; other class ids may be predicted as well


def load_detector(
    checkpoint: str | os.PathLike[str] | Mapping[str, Any],
    device: str | torch.device = "auto",
    *,
    source: str = "the given checkpoint",
) -> Detector:
    """Build the model of a checkpoint and load its weights. No other file is read or downloaded.

    The settings are the `args` of the checkpoint. If it has none, like some published files, they are inferred from
    the names and shapes of the weights, and the others have their published values; the last stage is dilated if "dc5"
    is part of the file name. The categories are those of the checkpoint, or COCO's if the number of classes is COCO's
    (91, or 250 for panoptic models).

    Args:
        checkpoint: a path, an http(s) URL, or the result of `util.checkpoint.load_checkpoint`.
        device: auto, cpu, cuda, cuda:N or mps.
        source: where a checkpoint that is already loaded comes from, for messages.

    Raises:
        CheckpointError: the checkpoint cannot be read or does not contain a detector.
        ValueError: the device does not exist.
    """
    source = source if isinstance(checkpoint, Mapping) else os.fspath(checkpoint)
    loaded = checkpoint if isinstance(checkpoint, Mapping) else load_checkpoint(checkpoint)
    weights = model_of(loaded, source)
    detector, num_classes = detector_weights(weights), count_classes(weights, source)
    args = argparse.ArgumentParser(parents=[get_args_parser()]).parse_args([])
    if loaded.get("args"):
        vars(args).update(read_settings({**loaded, "model": weights}, source, _READ))
    else:
        vars(args).update(infer_settings({"model": weights}, source))
    args.device = str(resolve_device(device))
    args.num_classes = num_classes
    args.resume = source  # the checkpoint provides the backbone's weights, so none are downloaded
    args.masks, args.frozen_weights = detector is not weights, None
    check_settings(args, source)
    published = {COCO_NUM_CLASSES: coco_categories, PANOPTIC_NUM_CLASSES: panoptic_categories}
    categories = loaded.get("categories") or published.get(args.num_classes, list)()
    if args.masks and not loaded.get("args") and args.num_classes == PANOPTIC_NUM_CLASSES:
        args.dataset_file = "coco_panoptic"
    if any("isthing" in category for category in categories):
        args.thing_ids = thing_ids(categories)
    try:
        model, _, postprocessors = build_model(args)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"cannot build a model from the settings in {source} (`args`): {error}") from error
    load_weights(model, weights, source)
    model.to(memory_format=torch.channels_last).eval()  # equal outputs, faster convolutions
    return Detector(model, postprocessors, args, sorted(categories, key=lambda category: category["id"]))
