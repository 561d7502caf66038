"""A checkpoint → the detector it holds, ready to predict."""

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
from util.checkpoint_entries import count_classes, detector_weights, model_of
from util.coco_names import COCO_NUM_CLASSES, PANOPTIC_NUM_CLASSES, coco_categories, panoptic_categories, thing_ids
from util.device import resolve_device

# Blocks in layer3 → the ResNet, for those with bottlenecks and those without.
_BY_DEPTH = {True: {6: "resnet50", 23: "resnet101", 36: "resnet152"}, False: {2: "resnet18", 6: "resnet34"}}
_BODY = "backbone.0.body."


class Detector(NamedTuple):
    """A model with weights, in evaluation mode, and what is known about it."""

    model: nn.Module
    postprocessors: dict[str, nn.Module]
    args: argparse.Namespace  # all settings of the command line, the checkpoint's where it has them
    categories: list[dict[str, Any]]  # {"id", "name"}, by id; class ids that no category names may be predicted too


def load_detector(
    checkpoint: str | os.PathLike[str] | Mapping[str, Any], device: str | torch.device = "auto"
) -> Detector:
    """Build the model that a checkpoint was saved from, and load its weights; nothing else is read or downloaded.

    The settings are the checkpoint's own `args`. A file of weights alone, as some published ones are, is built by the
    shapes of its weights, with the settings that leave no trace in them at their published values; its last stage is
    dilated if "dc5" is a part of its name. Categories are the checkpoint's, else COCO's if there are 91 classes.

    Args:
        checkpoint: a file, an http(s) address, or what `util.checkpoint.load_checkpoint` returned.
        device: where to; auto, cpu, cuda, cuda:N or mps.

    Raises:
        CheckpointError: the checkpoint cannot be read, or is none of a detector.
        ValueError: there is no such device.
    """
    source = "the given checkpoint" if isinstance(checkpoint, Mapping) else os.fspath(checkpoint)
    loaded = checkpoint if isinstance(checkpoint, Mapping) else load_checkpoint(checkpoint)
    weights = model_of(loaded, source)
    detector, num_classes = detector_weights(weights), count_classes(weights, source)
    args = argparse.ArgumentParser(parents=[get_args_parser()]).parse_args([])
    vars(args).update(loaded["args"] if loaded.get("args") else _settings_in(detector, source))
    args.device = str(resolve_device(device))
    args.num_classes = num_classes
    args.resume = source  # this brings the backbone's weights: none are downloaded
    args.masks, args.frozen_weights = detector is not weights, None
    named = {COCO_NUM_CLASSES: coco_categories, PANOPTIC_NUM_CLASSES: panoptic_categories}
    categories = loaded.get("categories") or named.get(args.num_classes, list)()
    if args.masks and not loaded.get("args") and args.num_classes == PANOPTIC_NUM_CLASSES:
        args.dataset_file = "coco_panoptic"
    if any("isthing" in category for category in categories):
        args.thing_ids = thing_ids(categories)
    try:
        model, _, postprocessors = build_model(args)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"the settings in {source} (`args`) build no model: {error}") from error
    load_weights(model, weights, source)
    model.to(memory_format=torch.channels_last).eval()  # the same numbers, faster convolutions
    return Detector(model, postprocessors, args, sorted(categories, key=lambda category: category["id"]))


def _settings_in(weights: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """What the names and shapes of the weights tell of the settings they were trained with."""

    def count(prefix: str) -> int:
        found = (re.match(re.escape(prefix) + r"(\d+)\.", name) for name in weights)
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    try:
        num_queries, hidden_dim = weights["query_embed.weight"].shape
        bottleneck = f"{_BODY}layer3.0.conv3.weight" in weights
        return {
            "backbone": _BY_DEPTH[bottleneck][count(f"{_BODY}layer3.")],
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
            f"{source} does not say how its model is built (no `args`), and its weights are none of a published "
            "detector: use a checkpoint of main.py"
        ) from error
