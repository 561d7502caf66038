"""ONNX's form of a detector: one file, which ONNX Runtime computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prediction.exported.about import ENTRY
from util.errors import CheckpointError
from util.text import printable

MOST_BYTES = 2**31 - 1  # of a protocol buffer
_FATAL = 4  # the level of ONNX Runtime's log; what goes wrong is raised, too


def load_onnx(path: Path, threads: int | None) -> tuple[Callable[[Tensor, Tensor], tuple[Tensor, ...]], str | None]:
    """What runs an .onnx file, see `prediction.exported.forms.load_form`, and the text of its entry `detr`.

    Raises:
        CheckpointError: a package is missing, or the file is too large or takes its weights from other files.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise CheckpointError(f'{error}, which .onnx files need: pip install ".[export]"') from error
    if path.stat().st_size > MOST_BYTES:
        raise CheckpointError(f"{printable(path, 300)} is larger than any .onnx, 2 GB: pass another file")
    content = path.read_bytes()
    if _names_other_files(onnx.load_model_from_string(content)):
        raise CheckpointError(
            f"{printable(path, 300)} takes weights from other files, which are not read: export the checkpoint again "
            "with `python -m tools.export`, which writes one file"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: a thread a core
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.load_model_format", "ONNX")  # and not ONNX Runtime's own
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]

    def runs(image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        found = session.run(outputs, {"image": image.numpy(), "mask": mask.numpy()})
        return tuple(map(torch.from_numpy, found))

    return runs, session.get_modelmeta().custom_metadata_map.get(ENTRY)


def _names_other_files(message: Any) -> bool:
    """Whether any tensor of an ONNX message, at any depth, names a file with its content."""
    for field, value in message.ListFields():
        if field.name in ("external_data", "data_location") and value:
            return True
        if field.type == field.TYPE_MESSAGE:
            if any(map(_names_other_files, [value] if hasattr(value, "ListFields") else value)):
                return True
    return False
