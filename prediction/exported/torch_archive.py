"""The .pt2 form: an archive of torch.export, whose records are checked before torch reads them."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from prediction.exported.about import ENTRY
from util.errors import CheckpointError
from util.text import printable

# What torch.export.save writes for a detector. Other records, such as custom objects, may hold code that torch runs.
_RECORDS = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)|"
    r"models/model\.json|data/sample_inputs/model\.pt|extra/detr|archive_format|archive_version|byteorder|"
    r"version|\.data/\w+"
)
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")


def is_torch_archive(path: Path) -> bool:
    """Whether a file is an archive of torch.export, and not a checkpoint under this suffix."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/archive_format") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_torch_archive(path: Path) -> tuple[ExportedProgram, str | None]:
    """The program of a .pt2 file, and the text of its entry `detr`; None if it has none.

    Raises:
        CheckpointError: the archive holds something that is not tensors and a graph, which torch would unpickle.
    """
    _refuse_pickles(path)
    entries = {ENTRY: ""}
    program = torch.export.load(path, extra_files=entries)
    return program, entries[ENTRY] or None


def _refuse_pickles(path: Path) -> None:
    """torch.export.load unpickles anything; nothing that `tools.export` writes needs more than tensors."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        root = f"{names[0].split('/')[0]}/" if names else ""
        for name in names:
            if not name.startswith(root) or not _RECORDS.fullmatch(name.removeprefix(root)):
                raise CheckpointError(
                    f"{path} holds {printable(name, 100)}, which may be code, and code from a file is not run: export "
                    "the checkpoint again with `python -m tools.export`"
                )
        for name in _CONFIGS:
            config: Any = json.loads(archive.read(root + name))
            if any(entry["use_pickle"] for entry in config["config"].values()):
                raise CheckpointError(f"{path} holds pickled weights, which may be code: export the checkpoint again")
        if f"{root}data/sample_inputs/model.pt" in names:
            samples = io.BytesIO(archive.read(f"{root}data/sample_inputs/model.pt"))
            torch.load(samples, weights_only=True)  # raises where torch.export.load would run code
