"""OpenVINO's form of a detector: an .xml file with the graph, and its weights in a .bin file of the same name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from prediction.exported.about import ENTRY
from util.errors import CheckpointError
from util.files import sha256_of
from util.text import printable

# Without f32, OpenVINO computes in bfloat16 where the processor has it, and says nothing.
OPTIONS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


def import_openvino() -> ModuleType:
    """The package `openvino`, imported so that it reports nothing.

    By itself, importing it sends an event to Google Analytics and writes an id to ~/intel. Where its package for that
    is missing, it takes a stub, and so it does here.

    Raises:
        CheckpointError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise CheckpointError(f'{error}, which OpenVINO\'s form, .xml, needs: pip install ".[openvino]"') from error
    return openvino


def read_openvino(path: Path, weights: Path | None = None) -> tuple[Any, str | None]:
    """A model of an .xml file, and the text of its entry `detr`; None if it has none.

    Args:
        path: the .xml.
        weights: the .bin, by default the file of the same name beside it.

    Raises:
        CheckpointError: OpenVINO is missing, or the .bin is that of another export.
        ValueError: the file is no XML.
    """
    core, weights = import_openvino().Core(), weights or path.with_suffix(".bin")
    with path.open("rb") as file:
        if not file.read(100).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):  # OpenVINO takes other formats, too
            raise ValueError("it is no XML")
    model = core.read_model(path, weights)
    entry = model.get_rt_info([ENTRY]).astype(str) if model.has_rt_info([ENTRY]) else None
    expected = _weights_of(entry)
    if expected is not None and sha256_of(weights) != expected:
        raise CheckpointError(
            f"{printable(weights, 300)} is not the file that {printable(path.name, 300)} was written with: copy both "
            "files of one export again"
        )
    return model, entry


def _weights_of(entry: str | None) -> str | None:
    """The SHA-256 of the .bin in an entry; None if there is none, as in files of earlier versions."""
    try:
        found = json.loads(entry or "{}")
    except (ValueError, RecursionError):  # it is reported where it is read
        return None
    return found.get("weights") if isinstance(found, dict) else None


def compile_openvino(
    model: Any, outputs: Sequence[str], threads: int | None = None, size: tuple[int, int, int] | None = None
) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    """What runs a model in float32, see `prediction.exported.forms.load_form`."""
    if size is not None:
        batch, height, width = size
        model.reshape({"image": [batch, 3, height, width], "mask": [batch, height, width]})
    options = OPTIONS if threads is None else {**OPTIONS, "INFERENCE_NUM_THREADS": threads}
    compiled = import_openvino().compile_model(model, "CPU", options)
    present = {name for output in compiled.outputs for name in output.names}
    names = [name for name in outputs if name in present]

    def runs(image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        found = compiled({"image": image.numpy(), "mask": mask.numpy()})
        return tuple(torch.from_numpy(found[name].copy()) for name in names)  # OpenVINO writes to its array again

    return runs
