"""A checkpoint → a detector that is ready to predict."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models import build_model
from util.arguments import get_args_parser
from util.checkpoint import CheckpointError, load_checkpoint, load_weights
from util.coco_names import COCO_NUM_CLASSES, PANOPTIC_NUM_CLASSES, coco_categories, panoptic_categories, thing_ids
from util.device import resolve_device
from util.loading.checkpoint_entries import count_classes, detector_weights, model_of

# Whether the blocks are bottlenecks → number of blocks in layer3 → name of the ResNet
_RESNETS = {True: {6: "resnet50", 23: "resnet101", 36: "resnet152"}, False: {2: "resnet18", 6: "resnet34"}}
_BODY = "backbone.0.body."


class Detector(NamedTuple):
    """A model with weights, in evaluation mode, with its settings and categories."""

    model: nn.Module
    postprocessors: dict[str, nn.Module]
    args: argparse.Namespace  # all settings of the command line, with the checkpoint's values
    categories: list[dict[str, Any]]  # {"id", "name"}, sorted by id; other class ids may be predicted as well


def load_detector(
    checkpoint: str | os.PathLike[str] | Mapping[str, Any], device: str | torch.device = "auto"
) -> Detector:
    """Build the model of a checkpoint and load its weights. No other file is read or downloaded.

    The settings are the `args` of the checkpoint. If it has none, like some published files, they are inferred from
    the names and shapes of the weights, and the others have their published values; the last stage is dilated if "dc5"
    is part of the file name. The categories are those of the checkpoint, or COCO's if the number of classes is COCO's
    (91, or 250 for panoptic models).

    Args:
        checkpoint: a path, an http(s) URL, or the result of `util.checkpoint.load_checkpoint`.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        CheckpointError: the checkpoint cannot be read or does not contain a detector.
        ValueError: the device does not exist.
    """
    source = "the given checkpoint" if isinstance(checkpoint, Mapping) else os.fspath(checkpoint)
    loaded = checkpoint if isinstance(checkpoint, Mapping) else load_checkpoint(checkpoint)
    weights = model_of(loaded, source)
    detector, num_classes = detector_weights(weights), count_classes(weights, source)
    args = argparse.ArgumentParser(parents=[get_args_parser()]).parse_args([])
    vars(args).update(loaded["args"] if loaded.get("args") else _infer_settings(detector, source))
    args.device = str(resolve_device(device))
    args.num_classes = num_classes
    args.resume = source  # the checkpoint provides the backbone's weights, so none are downloaded
    args.masks, args.frozen_weights = detector is not weights, None
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


def _infer_settings(weights: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The settings of a model that follow from the names and shapes of its weights, and `dilation` from the source."""

    def count(prefix: str) -> int:
        found = (re.match(re.escape(prefix) + r"(\d+)\.", name) for name in weights)
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    try:
        num_queries, hidden_dim = weights["query_embed.weight"].shape
        bottleneck = f"{_BODY}layer3.0.conv3.weight" in weights
        return {
            "backbone": _RESNETS[bottleneck][count(f"{_BODY}layer3.")],
            "dilation": "dc5" in re.split(r"[-_./]", source.lower()),
            "position_embedding": "learned" if "backbone.1.row_embed.weight" in weights else "sine",
            "num_queries": num_queries,
            "hidden_dim": hidden_dim,
            "enc_layers": count("transformer.encoder.layers."),
            "dec_layers": count("transformer.decoder.layers."),
            "dim_feedforward": len(weights["transformer.decoder.layers.0.linear1.weight"]),
            "pre_norm": "transformer.encoder.norm.weight" in weights,
        }
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{source} has no settings (`args`), and its weights are not those of a published detector: use a "
            "checkpoint written by main.py"
        ) from error
