"""Writing OpenVINO's form of a detector: an .xml file with the graph, and its weights in a .bin file beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from prediction.exported.about import ENTRY
from prediction.exported.openvino import import_openvino


def write_openvino(program: ExportedProgram, path: Path, about: str, outputs: Sequence[str]) -> None:
    """Convert a traced detector and write it; `about` becomes the entry `detr` of the model's `rt_info`."""
    model = import_openvino().convert_model(program)
    for output, name in zip(model.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    model.set_rt_info(about, [ENTRY])
    save_openvino(model, path)


def save_openvino(model: Any, path: Path) -> None:
    """Write an OpenVINO model with its weights as they are; by default, OpenVINO would halve them to float16."""
    import_openvino().save_model(model, path, compress_to_fp16=False)
