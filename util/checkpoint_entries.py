"""What the entries of a checkpoint must be, whoever wrote it.

Only what a reader would otherwise stumble over later is looked at; a checkpoint may lack any entry, hold None for it,
and hold more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from util.errors import CheckpointError
from util.files import is_count, is_number


def check_entries(checkpoint: Mapping[Any, Any], source: str) -> None:
    """Refuse a checkpoint with an entry of the wrong kind.

    Raises:
        CheckpointError: names `source`, the entry, and what it should be.
    """
    for name, (is_right, kind) in ENTRIES.items():
        value = checkpoint.get(name)
        if value is not None and not is_right(value):
            raise CheckpointError(
                f"`{name}` of checkpoint {source} is no {kind}, so it is damaged or of another program: pass another"
            )


def model_of(checkpoint: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The weights in a checkpoint.

    Raises:
        CheckpointError: there are none under `model`.
    """
    check_entries({"model": checkpoint.get("model")}, source)
    if not checkpoint.get("model"):
        bare = any(isinstance(value, Tensor) for value in checkpoint.values())
        remedy = "it looks like bare weights: save them under the key `model`" if bare else "pass another file"
        raise CheckpointError(f"{source} holds no weights under `model`, so it is no checkpoint of a model; {remedy}")
    return checkpoint["model"]


def detector_weights(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights of a detector, out of a segmentation model's if these are one's; else the same object."""
    if not any(name.startswith("detr.") for name in weights):
        return weights
    return {name.removeprefix("detr."): value for name, value in weights.items() if name.startswith("detr.")}


def count_classes(weights: Mapping[str, Tensor], source: str) -> int:
    """C of the detector or segmentation model that has these weights; CheckpointError if they are none's."""
    head = detector_weights(weights).get("class_embed.weight")
    if head is None or head.ndim != 2:
        raise CheckpointError(f"{source} holds no DETR (no class_embed.weight under `model`): pass another file")
    return len(head) - 1


def _is_weights(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(n, str) and isinstance(v, Tensor) for n, v in value.items())


def _is_categories(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict) and is_count(entry.get("id")) and isinstance(entry.get("name"), str) for entry in value
    )


def _is_epoch(value: Any) -> bool:
    return is_count(value) or (type(value) is int and value == -1)  # -1: saved inside of epoch 0, none is finished


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
    "model": (_is_weights, "dictionary of names and tensors"),
    "optimizer": (_is_dict, "dictionary"),
    "lr_scheduler": (_is_dict, "dictionary"),
    "epoch": (_is_epoch, "number of an epoch"),
    "step": (is_count, "number of steps"),
    "args": (_is_settings, "dictionary of settings"),
    "categories": (_is_categories, "list of ids and names"),
    "best_score": (is_number, "number"),
    "best_ap": (is_number, "number"),  # best_score in files written earlier
    "record": (_is_record, "line of a log"),
    "world_size": (is_count, "number of processes"),
    "progress": (_is_progress, "place inside of an epoch"),
    "rng": (_is_list, "list of the generators' states"),
    "data": (_is_text, "fingerprint of the data"),
    "versions": (_is_dict, "dictionary of versions"),
}
