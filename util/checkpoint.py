"""Checkpoints as plain data: written whole or not at all, read without running anything they contain.

The keys and their meaning are the published ones (`model`, `optimizer`, `lr_scheduler`, `epoch`, `args`), with ours
beside them. Published files hold a pickled `argparse.Namespace`; it and path classes are all that is let through
besides tensors and plain data.
"""

import argparse
import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from util.checkpoint_entries import check_entries
from util.errors import CheckpointError
from util.files import plain, write_atomically

# Paths are read as their "pure" kind, so that a file from Windows loads on Linux and the other way round. Python 3.13
# writes them under another module name.
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
    """Save tensors and plain data so that `load_checkpoint`, and the published code, can read them.

    Namespaces, paths and NumPy values are converted by `plain` on the way; the write is atomic.

    Raises:
        TypeError: something in the checkpoint has no plain form; nothing is written.
    """
    content = plain(checkpoint)
    write_atomically(path, lambda file: torch.save(content, file))


def load_checkpoint(path_or_url: str | os.PathLike[str], *, also_allowed: Sequence[Any] = ()) -> dict[str, Any]:
    """Read a checkpoint, ours or a published one, onto the CPU without running anything in it.

    An http(s) address is downloaded once into torch.hub's cache; a hash in its name (`name-0123abcd.pth`) is checked
    on the way. `args` comes back as a plain dictionary, whether a Namespace or a dictionary was saved.

    Args:
        path_or_url: the file or its address.
        also_allowed: further harmless classes to let through, as `torch.serialization.safe_globals` takes them.

    Raises:
        CheckpointError: the file is missing, empty, cut off, no checkpoint, or would run code; or an entry that we
            know is of another kind, see `util.checkpoint_entries`.
    """
    source = os.fspath(path_or_url)
    is_url = source.startswith(("http://", "https://"))
    try:
        with torch.serialization.safe_globals([*_ALLOWED, *also_allowed]):
            if is_url and not Path(urlparse(source).path).name:
                raise CheckpointError(f"the address {source} names no file: add the checkpoint's name")
            if is_url:
                loaded = torch.hub.load_state_dict_from_url(
                    source, map_location="cpu", check_hash=True, weights_only=True, progress=sys.stderr.isatty()
                )
            else:
                _check_readable(Path(source))
                loaded = torch.load(source, map_location="cpu", weights_only=True)
        if not isinstance(loaded, dict):
            raise CheckpointError(
                f"checkpoint {source} holds a {type(loaded).__name__}, not a dictionary: save one anew"
            )
        if "args" in loaded:
            loaded["args"] = plain(loaded["args"], "args")
        check_entries(loaded, source)
    except CheckpointError:
        raise
    except Exception as error:  # broken files surface as almost any type; the reader should meet one
        raise CheckpointError(_explain(source, is_url, error)) from error
    return loaded


def _check_readable(path: Path) -> None:
    if path.is_dir():
        inside = sorted(file.name for file in path.glob("*.pth"))
        choice = f"name a file in it, such as {inside[0]}" if inside else "name the checkpoint file itself"
        raise CheckpointError(f"{path} is a folder, not a checkpoint: {choice}")
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}: check the path (it is taken from {Path.cwd()})")
    if path.stat().st_size == 0:
        raise CheckpointError(f"checkpoint {path} is empty, as if its writing or copying was cut off: copy it anew")


def _explain(source: str, is_url: bool, error: Exception) -> str:
    """One sentence or two on why `source` could not be loaded, and the way out."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return (
            f"checkpoint {source} asks for {refused[1]}, and code from a checkpoint is not run here: use a file of "
            "tensors and plain data; if you trust its maker, load it once yourself with weights_only=False and save "
            "its `model` entry anew"
        )
    if is_url and isinstance(error, URLError | TimeoutError):
        return (
            f"checkpoint {source} could not be downloaded ({error}): check the address and the network, "
            "or download the file elsewhere and pass its path"
        )
    if is_url and "invalid hash value" in str(error):
        return f"checkpoint {source} does not have the hash in its name, so it is damaged or not the real file: retry"
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(source).path).name) if is_url else Path(source)
    remedy = f"delete {file} so that it is downloaded anew" if is_url else "copy or download it anew"
    with suppress(OSError), file.open("rb") as content:
        start = content.read(60)
        if start[:2] == b"PK":
            return f"checkpoint {source} is cut off or damaged ({_cause(error)}): {remedy}"
        if start.isascii() and start[:1] != b"\x80":
            line = start.decode().strip().split("\n")[0]
            return f"{source} is text (it begins with {line!r}), not a checkpoint: {remedy}"
    return f"checkpoint {source} cannot be read ({_cause(error)}): if it should be one, {remedy}"


def _cause(error: Exception) -> str:
    """The error's own words on one line, without the advice that torch puts around them."""
    found = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
    text = (found[1] if found else str(error).strip()).split("\n")[0]
    return text if " " in text else f"{type(error).__name__} {text}".strip()


# What differs in the names → the flags that are likely to have been different.
_CAUSES = {
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
    """Load `state` into `model`, every name and shape fitting; else the model is left as it was.

    `num_batches_tracked` counters, which frozen norms do not have, are left to the modules.

    Raises:
        CheckpointError: names `source`, the first entries that are missing, unexpected or of another shape, how many
            there are, and the flags that may have differed; or entries that are no usable numbers.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(f"the weights of {source} are no dictionary of names and tensors: pass another file")
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [str(n) for n in state if n not in own and not str(n).endswith("num_batches_tracked")]
    shared = [name for name in own if name in state]
    reshaped = {
        name: f"{name} is {list(state[name].shape)} in the file and {list(own[name].shape)} in the model"
        for name in shared
        if isinstance(state[name], Tensor) and state[name].shape != own[name].shape
    }
    if not (missing or unexpected or reshaped):
        faults = [f"{name} {fault}" for name in shared if (fault := _fault(state[name], own[name]))]
        if faults:
            found = _count(faults, "of no use")
            raise CheckpointError(f"the weights of {source} cannot be loaded: {found}. Use a checkpoint saved before")
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(f"the weights of {source} do not fit the model: {error}") from error
        return
    problems = [
        _count(missing, "missing from it"),
        _count(unexpected, "unknown to the model"),
        _count(list(reshaped.values()), "of another shape"),
    ]
    found = "; ".join(problem for problem in problems if problem)
    cause = _likely_cause([*missing, *unexpected, *reshaped], unexpected)
    raise CheckpointError(f"the weights of {source} do not fit the model: {found}. {cause}")


def _fault(value: Any, own: Tensor) -> str:
    """What is wrong with an entry of the right shape; empty if nothing is."""
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}"
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return "is stored in another way than as plain numbers"
    if value.is_complex() or value.is_floating_point() != own.is_floating_point():
        return f"holds {value.dtype} in place of {own.dtype}"
    if own.is_floating_point() and not value.to(own.dtype).isfinite().all():
        return "holds values that are not finite"
    return ""


def _count(entries: list[str], what: str, shown: int = 3) -> str:
    if not entries:
        return ""
    more = ", ..." if len(entries) > shown else ""
    return f"{len(entries)} {what} ({', '.join(entries[:shown])}{more})"


def _likely_cause(names: list[str], unexpected: list[str]) -> str:
    if "model" in unexpected:
        return "It looks like a whole checkpoint: pass its `model` entry"
    if unexpected and all(name.startswith("module.") for name in unexpected):
        return "They were saved from inside DistributedDataParallel: save model.module.state_dict()"
    if any(name.startswith("detr.") for name in names):
        return "One of the two was built with --masks and the other without: build the model with the file's flags"
    flags = [flag for part, flags in _CAUSES.items() if any(part in n for n in names) for flag in flags.split(", ")]
    if not flags:
        return "It seems to come from another model"
    return f"Build the model with the flags the file was made with; look first at {', '.join(dict.fromkeys(flags))}"
