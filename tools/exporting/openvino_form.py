"""OpenVINO's form of a detector: an .xml file with the graph, and its weights in a .bin file of the same name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from tools.command import ToolError

# Without f32, OpenVINO computes in bfloat16 where the processor has it, and says nothing.
OPTIONS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


def import_openvino() -> ModuleType:
    """The package `openvino`, imported so that it reports nothing.

    By itself, importing it sends an event to Google Analytics and writes an id to ~/intel. Where its package for that
    is missing, it takes a stub, and so it does here.

    Raises:
        ToolError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise ToolError(f'{error}, which OpenVINO\'s form, .xml, needs: pip install ".[openvino]"') from error
    return openvino


def write_openvino(program: ExportedProgram, path: Path, about: str, outputs: Sequence[str]) -> None:
    """Convert a traced detector and write it; `about` becomes the entry `detr` of the model's `rt_info`."""
    model = import_openvino().convert_model(program)
    for output, name in zip(model.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    model.set_rt_info(about, ["detr"])
    save_openvino(model, path)


def save_openvino(model: Any, path: Path) -> None:
    """Write an OpenVINO model with its weights as they are; by default, OpenVINO would halve them to float16."""
    import_openvino().save_model(model, path, compress_to_fp16=False)


def load_openvino(
    path: Path, outputs: Sequence[str], threads: int | None = None, size: tuple[int, int, int] | None = None
) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    """What runs an .xml file in float32, see `tools.exporting.forms.load_form`."""
    core = import_openvino().Core()
    model = core.read_model(path)
    if size is not None:
        batch, height, width = size
        model.reshape({"image": [batch, 3, height, width], "mask": [batch, height, width]})
    options = OPTIONS if threads is None else {**OPTIONS, "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(model, "CPU", options)
    present = {name for output in compiled.outputs for name in output.names}
    names = [name for name in outputs if name in present]

    def runs(image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        found = compiled({"image": image.numpy(), "mask": mask.numpy()})
        return tuple(torch.from_numpy(found[name]) for name in names)

    return runs
