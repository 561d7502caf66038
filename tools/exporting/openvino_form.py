"""Writing OpenVINO's form of a detector: an .xml file with the graph, and its weights in a .bin file beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from prediction.exported.about import ENTRY
from prediction.exported.openvino import import_openvino
from util.files import sha256_of


def write_openvino(program: ExportedProgram, path: Path, about: str, outputs: Sequence[str]) -> None:
    """Convert a traced detector and write it; `about` becomes the entry `detr` of the model's `rt_info`."""
    model = import_openvino().convert_model(program)
    for output, name in zip(model.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    save_openvino(model, path, about)


def save_openvino(model: Any, path: Path, about: str) -> None:
    """Write an OpenVINO model with its weights as they are; by default, OpenVINO would halve them to float16.

    The entry also gets the checksum of the weights, so that the two files of different exports are not mixed.
    """
    save = import_openvino().save_model
    save(model, path, compress_to_fp16=False)
    entry = {**json.loads(about), "weights": sha256_of(path.with_suffix(".bin"))}
    model.set_rt_info(json.dumps(entry), [ENTRY])
    save(model, path, compress_to_fp16=False)
