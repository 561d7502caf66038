"""The settings that a checkpoint brings along, checked as those of the command line are.

A file may come from anywhere, so its values are compared with the table of settings and with the weights before
anything is built from them.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from util.arguments import check_detector
from util.errors import CheckpointError
from util.loading.checkpoint_entries import detector_weights, has_masks
from util.settings import DETECTOR, SETTINGS, names_that_touch

# Whether the blocks are bottlenecks → number of blocks in layer3 → name of the ResNet
_RESNETS = {True: {6: "resnet50", 23: "resnet101", 36: "resnet152"}, False: {2: "resnet18", 6: "resnet34"}}
_BODY = "backbone.0.body."
PUBLISHED = {"backbone", "dilation", "position_embedding", "nheads", "pre_norm"}  # that the published code saves


def read_settings(checkpoint: Mapping[str, Any], source: str, names: Iterable[str]) -> dict[str, Any]:
    """The settings among `names` that a checkpoint has.

    Those of the detector are compared with the weights. One that `args` lack is what the weights say. Files of the
    published code lack some of ours, which then have the published value. `masks` is what the weights say.

    Args:
        checkpoint: as `util.checkpoint.load_checkpoint` returns it, with weights under `model`.
        source: its path or address, for messages.

    Raises:
        CheckpointError: a value that no command line could have set, or that the weights contradict.
    """
    saved, names = checkpoint.get("args") or {}, tuple(names)
    found = {name: saved[name] for name in names if name in saved}
    try:
        for name, value in found.items():
            SETTINGS[name].check_saved(value)
    except ValueError as error:
        raise CheckpointError(
            f"a setting in {source} (`args`) cannot be used: {error}. Use another checkpoint"
        ) from error
    if found.get("val_size", 0) > found.get("max_size", math.inf):
        raise CheckpointError(
            f"the settings in {source} (`args`) cannot be used: val_size {found['val_size']} exceeds max_size "
            f"{found['max_size']}. Use another checkpoint"
        )
    weights = detector_weights(checkpoint["model"])
    if "masks" in found:
        found["masks"] = has_masks(checkpoint["model"])
    measured = _compare(found, weights, source)
    published = PUBLISHED <= saved.keys()
    for name in names_that_touch(DETECTOR):
        if name in names and name not in found and (name in measured or published):
            found[name] = measured.get(name, SETTINGS[name].default)
    return found


def infer_settings(checkpoint: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The settings of a published detector without `args`, from the names and shapes of its weights.

    The last stage is taken to be dilated if "dc5" is part of the source's name. Settings that leave no trace have their
    published values and are left out.

    Raises:
        CheckpointError: these are not the weights of a published detector.
    """
    weights = detector_weights(checkpoint["model"])
    try:
        bottleneck = f"{_BODY}layer3.0.conv3.weight" in weights
        _check_amount(weights, _measure(weights), source)
        return {
            "backbone": _RESNETS[bottleneck][_count(weights, f"{_BODY}layer3.")],
            "dilation": "dc5" in re.split(r"[-_./]", source.lower()),
            **_measure(weights),
        }
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{source} has no settings (`args`), and its weights are not those of a published detector: use a "
            "checkpoint written by main.py"
        ) from error


def check_settings(args: argparse.Namespace, source: str) -> None:
    """Refuse widths that do not go together, in a file's settings; CheckpointError names them."""
    try:
        check_detector(args)
    except ValueError as error:
        raise CheckpointError(f"the settings in {source} (`args`) cannot be used: {error}") from error


def _compare(settings: Mapping[str, Any], weights: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Refuse settings of the detector that the shapes of its weights contradict; returns those that the shapes tell."""
    try:
        measured = _measure(weights)
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{source} is not a DETR (weights are missing under `model`: {error}): pass another file"
        ) from error
    for name in names_that_touch(DETECTOR):
        if name in settings and settings[name] != measured.get(name, settings[name]):
            raise CheckpointError(
                f"{source} is damaged: its settings (`args`) say {SETTINGS[name].spell(settings[name])}, its weights "
                f"{SETTINGS[name].spell(measured[name])}. Use another checkpoint"
            )
    _check_amount(weights, measured, source)
    return measured


def _check_amount(weights: Mapping[str, Tensor], measured: Mapping[str, Any], source: str) -> None:
    """Refuse weights that lack most of what their names and widths promise: building that could take any memory."""
    width, feedforward, head = measured["hidden_dim"], measured["dim_feedforward"], weights.get("class_embed.weight")
    layers = measured["enc_layers"] + measured["dec_layers"]
    attentions = measured["enc_layers"] + 2 * measured["dec_layers"]
    rows = measured["num_queries"] + (len(head) if head is not None and head.dim() else 0)
    needed = attentions * 4 * width**2 + layers * 2 * width * feedforward + rows * width
    held = sum(value.numel() for value in weights.values())
    if needed > held:
        raise CheckpointError(
            f"{source} is damaged: a detector with {layers} layers of width {width} and {rows:,} rows of queries and "
            f"classes has more than {needed:,} weights, and the file has {held:,}. Use another checkpoint"
        )


def _measure(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings that the shapes of a detector's weights determine; KeyError or ValueError if it is none."""
    num_queries, hidden_dim = weights["query_embed.weight"].shape
    return {
        "position_embedding": "learned" if "backbone.1.row_embed.weight" in weights else "sine",
        "num_queries": num_queries,
        "hidden_dim": hidden_dim,
        "enc_layers": _count(weights, "transformer.encoder.layers."),
        "dec_layers": _count(weights, "transformer.decoder.layers."),
        "dim_feedforward": len(weights["transformer.decoder.layers.0.linear1.weight"]),
        "pre_norm": "transformer.encoder.norm.weight" in weights,
    }


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many layers have names that begin with `prefix` and their number."""
    return len({name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)})
