"""The types that the entries of a checkpoint must have, whichever program wrote it.

Only what would otherwise fail later is checked. A checkpoint may lack any entry, contain None for it, and contain
further entries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from util.errors import CheckpointError
from util.files import is_count, is_number
from util.loading.class_thresholds import is_thresholds
from util.loading.other_programs import names_in_groups, program_of_weights
from util.text import printable


def check_entries(checkpoint: Mapping[Any, Any], source: str) -> None:
    """Refuse a checkpoint with an entry of the wrong type.

    Raises:
        CheckpointError: names `source`, the entry, and what it must be.
    """
    for name, (is_valid, kind) in ENTRIES.items():
        value = checkpoint.get(name)
        if value is not None and not is_valid(value):
            raise CheckpointError(
                f"`{name}` of checkpoint {source} is not {kind}: the file is damaged or from another program; pass "
                "another file"
            )


def model_of(checkpoint: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The weights in a checkpoint that detect: their moving average where the file has one (`--ema`), else `model`.

    Training goes on from `model`, with or without an average.

    Raises:
        CheckpointError: `model` is missing or empty, or the average is of another model.
    """
    check_entries({name: checkpoint.get(name) for name in ("model", "model_ema")}, source)
    if not checkpoint.get("model"):
        names = [str(name) for name, value in checkpoint.items() if isinstance(value, Tensor)]
        advice = "these look like bare weights: save them under the key `model`" if names else "pass another file"
        program = program_of_weights(names or names_in_groups(checkpoint))
        advice = f"they look like {program}" if program else advice
        raise CheckpointError(f"{source} has no weights under `model`, as a checkpoint of a model must: {advice}")
    weights, average = checkpoint["model"], checkpoint.get("model_ema")
    if not average:
        return weights
    differing = [name for name in {**weights, **average} if _shape(weights.get(name)) != _shape(average.get(name))]
    if differing:
        raise CheckpointError(
            f"the moving average of the weights in {source} (`model_ema`) differs from `model` in the shape of "
            f"{len(differing)} entries ({printable(differing[0])}): the file is damaged; pass --raw_weights to do "
            "without the average, or another file"
        )
    return average


def without_average(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint of a run that kept no moving average of its weights, so that `model_of` returns `model`.

    The thresholds of the classes are those of the average, so they are left out with it.
    """
    left_out = ("model_ema", "ema_steps", "thresholds") if checkpoint.get("model_ema") else ("model_ema", "ema_steps")
    return {name: value for name, value in checkpoint.items() if name not in left_out}


def _shape(value: Tensor | None) -> Any:
    return value.shape if isinstance(value, Tensor) and not value.is_nested else None


def has_masks(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are a segmentation model's weights."""
    return any(name.startswith("detr.") for name in weights)


def detector_weights(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights of the detector in a segmentation model's weights; a detector's own weights unchanged."""
    if not has_masks(weights):
        return weights
    return {name.removeprefix("detr."): value for name, value in weights.items() if name.startswith("detr.")}


def count_classes(weights: Mapping[str, Tensor], source: str) -> int:
    """The number of classes C of a detector or segmentation model; CheckpointError for any other weights."""
    head = detector_weights(weights).get("class_embed.weight")
    if head is None or head.ndim != 2:
        advice = f"it looks like {program}" if (program := program_of_weights(weights)) else "pass another file"
        raise CheckpointError(f"{source} is not a DETR (no class_embed.weight under `model`): {advice}")
    return len(head) - 1


def _is_weights(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(n, str) and isinstance(v, Tensor) for n, v in value.items())


def _is_categories(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict) and is_count(entry.get("id")) and isinstance(entry.get("name"), str) for entry in value
    )


def _is_epoch(value: Any) -> bool:
    return is_count(value) or (type(value) is int and value == -1)  # -1: saved within epoch 0, none is finished


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_settings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(n, str) and not _holds_tensor(v) for n, v in value.items())


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        return any(map(_holds_tensor, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Tensor)


def _is_record(value: Any) -> bool:
    try:
        return isinstance(value, dict) and bool(json.dumps(value))
    except (TypeError, ValueError, RecursionError):
        return False


def _is_progress(value: Any) -> bool:
    parts = (value.get("meters"), value.get("train_stats")) if isinstance(value, dict) else (0,)
    return all(part is None or isinstance(part, dict) for part in parts) and is_count(value.get("step"))


# Entry → (check, what it must be). `training.state` documents the meaning.
ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (_is_weights, "a dictionary of names and tensors"),
    "model_ema": (_is_weights, "a dictionary of names and tensors"),
    "ema_steps": (is_count, "a number of steps"),
    "optimizer": (_is_dict, "a dictionary"),
    "lr_scheduler": (_is_dict, "a dictionary"),
    "scaler": (_is_dict, "a dictionary"),
    "epoch": (_is_epoch, "an epoch number"),
    "step": (is_count, "a number of steps"),
    "args": (_is_settings, "a dictionary of settings"),
    "categories": (_is_categories, "a list of ids and names"),
    "best_score": (is_number, "a number"),
    "waited": (is_count, "a whole number of at least 0"),
    "best_ap": (is_number, "a number"),  # name of best_score in earlier files
    "record": (_is_record, "a record of the log"),
    "thresholds": (is_thresholds, "a list of the classes' thresholds"),
    "world_size": (is_count, "a number of processes"),
    "progress": (_is_progress, "a position within an epoch"),
    "rng": (_is_list, "a list of the generators' states"),
    "data": (_is_text, "a fingerprint of the data"),
    "versions": (_is_dict, "a dictionary of versions"),
    "split": (_is_dict, "the record of a split"),
}
