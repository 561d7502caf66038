"""Checkpoints: written atomically as plain data, and read without running code that they contain.

The keys and their meaning are the published ones (`model`, `optimizer`, `lr_scheduler`, `epoch`, `args`), together with
ours. Besides tensors and plain data, only `argparse.Namespace`, which published files contain, and path classes are
loaded.
"""

import argparse
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from util.errors import CheckpointError
from util.files import plain, write_atomically
from util.loading.archive import Unusable
from util.loading.checkpoint_entries import check_entries
from util.loading.download import download, forget
from util.loading.file_kinds import START, advice_for, kind_of
from util.loading.other_programs import CONVERT, as_ours, program_of_classes, program_of_weights
from util.loading.survey import Contents, survey
from util.loading.transfer import is_address
from util.text import printable

# Paths are loaded as pure paths, so that a file from Windows loads on Linux and vice versa. Python 3.13 saves them
# under another module name.
_PATH_CLASSES = {
    "Path": pathlib.PurePath,
    "PurePath": pathlib.PurePath,
    "PosixPath": pathlib.PurePosixPath,
    "PurePosixPath": pathlib.PurePosixPath,
    "WindowsPath": pathlib.PureWindowsPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
}
_ALLOWED = [argparse.Namespace] + [
    (path_class, f"{module}.{name}")
    for name, path_class in _PATH_CLASSES.items()
    for module in ("pathlib", "pathlib._local")
]


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Mapping[str, Any]) -> None:
    """Save a checkpoint that `load_checkpoint` and the published code can load.

    Namespaces, paths and NumPy values are converted by `plain`; the write is atomic.

    Raises:
        TypeError: something in the checkpoint cannot be converted; nothing is written.
    """
    content = plain(checkpoint)
    write_atomically(path, lambda file: torch.save(content, file))


def load_checkpoint(path_or_url: str | os.PathLike[str], *, also_allowed: Sequence[Any] = ()) -> dict[str, Any]:
    """Load a checkpoint, ours or a published one, onto the CPU without running code from it.

    An http(s) address is downloaded into torch.hub's cache, see `util.loading.download`.
    `args` is returned as a dictionary, whether a Namespace or a dictionary was saved.

    Args:
        path_or_url: the file or its address.
        also_allowed: further harmless classes to load, in the form that `torch.serialization.safe_globals` takes.

    Raises:
        CheckpointError: the file is missing, empty, truncated, not a checkpoint, or contains code; or an entry has the
            wrong type, see `util.loading.checkpoint_entries`.
    """
    source = os.fspath(path_or_url)
    is_url = is_address(source)
    path = download(source) if is_url else Path(source)
    contents = Contents()
    try:
        _check_readable(path)
        contents = survey(path)
        with torch.serialization.safe_globals([*_ALLOWED, *also_allowed]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(loaded, dict):
            raise CheckpointError(
                f"checkpoint {source} contains a {type(loaded).__name__}, not a dictionary: pass another file"
            )
        if "args" in loaded:
            loaded["args"] = plain(loaded["args"], "args")
        loaded = as_ours(loaded, source)
        check_entries(loaded, source)
    except (CheckpointError, MemoryError):
        raise
    except Unusable as error:
        raise CheckpointError(f"checkpoint {source} {error}") from error
    except Exception as error:  # a damaged file can raise almost any type
        again = "try again to download it again" if is_url else "copy or download it again"
        sentence = _explain(source, path, contents, again, error)
        if is_url:
            forget(source)
        raise CheckpointError(sentence) from error
    return loaded


def _check_readable(path: Path) -> None:
    if path.is_dir():
        if (path / "config.json").is_file() and not any(path.glob("*.pth")):
            raise CheckpointError(f"{path} is a folder of Hugging Face's, not a checkpoint: {CONVERT}")
        inside = sorted(file.name for file in path.glob("*.pth"))
        advice = f"pass a file in it, such as {inside[0]}" if inside else "pass the checkpoint file itself"
        raise CheckpointError(f"{path} is a folder, not a checkpoint: {advice}")
    if re.match(r"\w+:/+\w", str(path)):
        raise CheckpointError(f"{path} is an address, and only http(s) is downloaded: download it, and pass its path")
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}: check the path (relative paths start at {Path.cwd()})")
    if not path.is_file():  # a pipe would be waited for
        raise CheckpointError(f"{path} is not a regular file: save the checkpoint to one and pass it")
    if path.stat().st_size == 0:
        raise CheckpointError(f"checkpoint {path} is empty, probably after an interrupted copy: copy it again")


def _explain(source: str, path: Path, contents: Contents, again: str, error: Exception) -> str:
    """The message for a file that could not be loaded: the cause, and what to do."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        program = program_of_classes(contents.classes)
        return (
            f"checkpoint {source} contains {printable(refused[1], 100)}, and code from a checkpoint is not run"
            f"{f' (it looks like {program})' if program else ''}: use a file with only tensors and plain data; if you "
            "trust its source, load it once yourself with weights_only=False and save its `model` entry to a new file"
        )
    with suppress(OSError), path.open("rb") as file:
        start = file.read(START)
        kind = kind_of(start)
        if start[:2] == b"PK":
            return f"checkpoint {source} is truncated or damaged ({_cause(error)}): {again}"
        if kind == "a safetensors file":
            return f"{source} is {kind}, not a checkpoint: for Hugging Face's DETR, {CONVERT}"
        if start.isascii() and 0 not in start:
            line = printable(start.decode().strip().split("\n")[0], 60)
            advice = advice_for(kind) if kind == "a Git LFS pointer" else again
            return f"{source} is text (it begins with '{line}'), not a checkpoint: {advice}"
        if kind and kind != "a Python pickle":
            return f"checkpoint {source} cannot be read, since it is {kind}: {advice_for(kind)}"
    return f"checkpoint {source} cannot be read ({_cause(error)}): if it is the right file, {again}"


def _cause(error: Exception) -> str:
    """The error's message on one line, without the advice that torch adds to it."""
    found = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
    text = (found[1] if found else str(error).strip()).split("\n")[0]
    return text if " " in text else f"{type(error).__name__} {text}".strip()


# Part of the names that differ → the flags that probably differed.
_FLAGS = {
    "class_embed": "--num_classes",
    "query_embed": "--num_queries, --hidden_dim",
    "encoder.layers": "--enc_layers, --dim_feedforward, --hidden_dim",
    "encoder.norm": "--pre_norm",
    "decoder.layers": "--dec_layers, --dim_feedforward, --hidden_dim",
    "input_proj": "--backbone, --hidden_dim",
    "backbone.0": "--backbone, --backbone_norm",
    "backbone.1": "--position_embedding",
    "mask_head": "--masks",
    "bbox_attention": "--masks",
}


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load `state` into `model` if every name and shape matches; otherwise the model stays unchanged.

    `num_batches_tracked` counters, which frozen norms do not have, are handled by the modules.

    Raises:
        CheckpointError: the message names `source`, the first entries that are missing, unexpected or of a different
            shape, their number, and the flags that probably differed; or the entries that are unusable.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(f"the weights of {source} are not a dictionary of names and tensors: pass another file")
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [str(n) for n in state if n not in own and not str(n).endswith("num_batches_tracked")]
    shared = [name for name in own if name in state]
    reshaped = {
        name: f"{name} is {list(state[name].shape)} in the file and {list(own[name].shape)} in the model"
        for name in shared
        if isinstance(state[name], Tensor) and not state[name].is_nested and state[name].shape != own[name].shape
    }
    if not (missing or unexpected or reshaped):
        faults = [f"{name} {fault}" for name in shared if (fault := _fault(state[name], own[name]))]
        if faults:
            found = _count(faults, "unusable")
            raise CheckpointError(f"the weights of {source} cannot be loaded: {found}. Use an earlier checkpoint")
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(f"the weights of {source} do not fit the model: {error}") from error
        return
    problems = [
        _count(missing, "missing"),
        _count(unexpected, "not in the model"),
        _count(list(reshaped.values()), "of a different shape"),
    ]
    found = "; ".join(problem for problem in problems if problem)
    cause = _likely_cause([*missing, *unexpected, *reshaped], unexpected)
    raise CheckpointError(f"the weights of {source} do not fit the model: {found}. {cause}")


def _fault(value: Any, own: Tensor) -> str:
    """What is wrong with an entry of the right shape; empty if it can be loaded."""
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}"
    if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_nested:
        return "is not a plain dense tensor"
    if value.is_complex() or value.is_floating_point() != own.is_floating_point():
        return f"has type {value.dtype} instead of {own.dtype}"
    if own.is_floating_point() and not value.to(own.dtype).isfinite().all():
        return "contains non-finite values"
    return ""


def _count(entries: list[str], what: str, shown: int = 3) -> str:
    if not entries:
        return ""
    more = ", ..." if len(entries) > shown else ""
    return f"{len(entries)} {what} ({', '.join(printable(entry) for entry in entries[:shown])}{more})"


def _likely_cause(names: list[str], unexpected: list[str]) -> str:
    if "model" in unexpected:
        return "They look like a whole checkpoint: pass its `model` entry"
    if unexpected and all(name.startswith("module.") for name in unexpected):
        return "They were saved from a model in DistributedDataParallel: save model.module.state_dict() instead"
    if any(name.startswith("detr.") for name in names):
        return "Either the file or the model was made with --masks, but not both: build the model with the file's flags"
    flags = [flag for part, flags in _FLAGS.items() if any(part in n for n in names) for flag in flags.split(", ")]
    program = program_of_weights(unexpected)
    if program:
        return f"They look like {program}"
    if not flags:
        return "They seem to belong to another model"
    return f"Build the model with the flags of the saved run; check first {', '.join(dict.fromkeys(flags))}"
