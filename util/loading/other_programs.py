"""Checkpoints of wrappers and of other libraries: read where only names differ, recognised otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from util.logging import get_logger
from util.text import printable

CONVERT = "convert its folder: python -m tools.convert FOLDER checkpoint.pth"

_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel and DataParallel; torch.compile
_GROUPS = (  # where other programs keep weights: Lightning and mmdetection, tutorials, averages
    "state_dict",
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "weights",
    "ema",
    "model_ema",
    "ema_state_dict",
)
_ATTRIBUTES = ("model.", "detector.", "net.", "network.")  # of the program's own module, such as Lightning's
_OURS = ("class_embed.weight", "query_embed.weight", "input_proj.weight")
_OURS_ONLY = "pass a checkpoint of this library or of the published DETR"

# Part of a weight's name, or ^ and its start → whose it is, and what to do
_BY_WEIGHT = {
    "class_labels_classifier.": f"Hugging Face's DetrForObjectDetection: {CONVERT}",
    "backbone.conv_encoder.": f"a model of Hugging Face: {CONVERT}, if it is a DETR",
    "bbox_head.": f"a model of mmdetection: {_OURS_ONLY}",
    "backbone.bottom_up.": f"a model of detectron2: {_OURS_ONLY}",
    "roi_heads.": f"a detector of torchvision or detectron2: {_OURS_ONLY}",
    "ref_point_head.": f"Conditional or DAB-DETR, another architecture: {_OURS_ONLY}",
    "transformer.level_embed": f"Deformable DETR or a relative, another architecture: {_OURS_ONLY}",
    "class_embed.0.": f"Deformable DETR or a relative, another architecture: {_OURS_ONLY}",
    "^model.0.conv.": f"a YOLO model: {_OURS_ONLY}",
    "^layer1.0.conv1.": "a ResNet alone: pass it as --backbone_weights",
}
# Package of a class → whose file names it
_BY_CLASS = {
    "ultralytics": "a YOLO model of Ultralytics, another architecture",
    "yolox": "a YOLO model, another architecture",
    "mmengine": "a checkpoint of mmdetection",
    "mmcv": "a checkpoint of mmdetection",
    "mmdet": "a checkpoint of mmdetection",
    "detectron2": "a checkpoint of detectron2",
    "pytorch_lightning": "a checkpoint of Lightning with its settings",
    "lightning": "a checkpoint of Lightning with its settings",
    "lightning_fabric": "a checkpoint of Lightning with its settings",
    "omegaconf": "a checkpoint of Lightning or Hydra with its settings",
    "transformers": "a file of Hugging Face's trainer",
    "fastai": "a model of fastai",
    "torch.nn.modules": "a whole model that was pickled: save its state_dict()",
}


def as_ours(checkpoint: dict[str, Any], source: str) -> dict[str, Any]:
    """The checkpoint with a detector's weights under `model`, and without a wrapper's prefix before all names.

    A checkpoint of another program becomes its weights alone: what else is in it means something else there. What was
    changed is logged in one line; any other checkpoint is returned as it is.
    """
    if checkpoint.get("model") is None:
        for group in _GROUPS:
            if (found := _detector_in(checkpoint.get(group))) is not None:
                weights, prefix = found
                left_out = len(checkpoint[group]) - len(weights)
                _log(source, f"`{group}`", prefix, f", {left_out} entries of other parts left out" if left_out else "")
                return {"model": weights}
        return checkpoint
    weights, prefix = _without_prefix(checkpoint["model"])
    if not prefix:
        return checkpoint
    _log(source, "`model`", prefix)
    return checkpoint | {"model": weights}


def names_in_groups(checkpoint: Mapping[Any, Any]) -> list[str]:
    """The names of the weights under any key where other programs keep them."""
    groups = (checkpoint.get(group) for group in _GROUPS)
    return [str(name) for group in groups if isinstance(group, dict) for name in group]


def program_of_weights(names: Iterable[Any]) -> str | None:
    """Whose weights have these names, and what to do; None if they are not recognised."""
    names = [str(name) for name in names]
    for part, program in _BY_WEIGHT.items():
        if any(name.startswith(part.lstrip("^")) or f".{part}" in name for name in names):
            return program
    return None


def program_of_classes(classes: Iterable[str]) -> str | None:
    """Whose file names these classes; None if they are not recognised."""
    classes = sorted(classes)
    for package, program in _BY_CLASS.items():
        if any(f"{name}.".startswith(f"{package}.") for name in classes):
            return program
    return None


def _without_prefix(weights: Any) -> tuple[dict[str, Any], str]:
    """The weights without what wrappers put before all names, and that prefix; an empty dictionary for other values."""
    if not isinstance(weights, dict) or not weights:
        return {}, ""
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()):
        return {}, ""
    removed = ""
    while prefix := next((p for p in _WRAPPERS if all(name.startswith(removed + p) for name in weights)), ""):
        removed += prefix
    return _below(weights, removed), removed


def _detector_in(group: Any) -> tuple[dict[str, Any], str] | None:
    """A detector's weights in another program's group, and what stood before their names."""
    weights, wrapper = _without_prefix(group)
    for attribute in ("", *_ATTRIBUTES):
        inner, compiled = _without_prefix(_below(weights, attribute))
        if all(name in inner or f"detr.{name}" in inner for name in _OURS):
            return inner, wrapper + attribute + compiled
    return None


def _below(weights: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}


def _log(source: str, group: str, prefix: str, more: str = "") -> None:
    without = f" without the prefix `{prefix}`" if prefix else ""
    get_logger().info(f"the weights of {printable(source)} are read from {group}{without}{more}")
