"""The .pt2 form: an archive of torch.export, whose records are checked before torch reads them."""

from __future__ import annotations

import io
import json
import logging
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from prediction.exported.about import ENTRY
from prediction.exported.torch_graph import unsafe_text
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
        CheckpointError: the archive holds something that is not tensors and a graph of tensor operations, which torch
            would unpickle or evaluate.
    """
    _refuse_code(path)
    entries = {ENTRY: ""}
    try:
        with _quiet():
            program = torch.export.load(path, extra_files=entries)
    except RuntimeError as error:
        if "warnings above" in str(error):  # in the log, which is off
            raise ValueError("PyTorch cannot read its graph or its weights") from error
        raise
    return program, entries[ENTRY] or None


def _refuse_code(path: Path) -> None:
    """torch.export.load unpickles and evaluates; what `tools.export` writes needs no more than tensors and a graph.

    Torch has a reader of its own for archives, so nothing is accepted that two readers may take for different things.
    """
    with path.open("rb") as file:
        is_plain = file.read(4) == b"PK\x03\x04"
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        names = [record.filename for record in records]
        root = f"{names[0].split('/')[0]}/" if names else ""
        for name in names:
            if not name.startswith(root) or not _RECORDS.fullmatch(name.removeprefix(root)):
                raise _refusal(path, printable(name, 100))
        is_plain = is_plain and len(set(names)) == len(names) and not archive.comment
        if not is_plain or any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise _refusal(path, "records in another form than torch.export writes")
        for name in _CONFIGS:
            config: Any = json.loads(archive.read(root + name))
            if any(entry["use_pickle"] for entry in config["config"].values()):
                raise _refusal(path, "pickled weights")
        unsafe = unsafe_text(archive.read(f"{root}models/model.json"))
        if unsafe is not None:
            raise _refusal(path, f"`{printable(unsafe, 100)}` in its graph")
        if f"{root}data/sample_inputs/model.pt" in names:
            samples = io.BytesIO(archive.read(f"{root}data/sample_inputs/model.pt"))
            try:
                torch.load(samples, weights_only=True)
            except pickle.UnpicklingError as error:  # torch.export.load would go on and run it
                raise _refusal(path, "more than tensors in its sample inputs") from error


def _refusal(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{printable(path, 300)} holds {what}, which may be code, and code from a file is not run: export the "
        "checkpoint again with `python -m tools.export`"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the traceback that torch.export logs before it raises."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
