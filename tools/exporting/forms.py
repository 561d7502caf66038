"""What writes each form of an exported detector. The suffix of a file names its form."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from prediction.exported.about import ENTRY
from prediction.exported.forms import OUTPUTS
from prediction.exported.openvino import import_openvino
from tools.command import refuse_input
from tools.exporting.openvino_form import write_openvino

OPSET = 18


def write_form(program: ExportedProgram, path: Path, about: Mapping[str, Any]) -> None:
    """Write a traced detector to `path`; .onnx, .pt2 or .xml sets the form.

    Args:
        program: the detector, with the inputs `image` and `mask`.
        path: the file. OpenVINO's form is two files, .xml and beside it .bin.
        about: what the file holds under the name `detr`, as JSON, see `prediction.exported.about.About`.
    """
    _WRITERS[path.suffix](program, path, json.dumps(about))


def check_output(out: Path, checkpoint: str | Path) -> None:
    """Refuse what cannot be written.

    Raises:
        ValueError: `out` names no form, or writing it would destroy the checkpoint or a foreign file.
        CheckpointError: OpenVINO is not installed and `out` is in its form.
    """
    if out.suffix not in _WRITERS:
        raise ValueError(f"{out} must end in .onnx, .pt2 or .xml, which sets the form")
    refuse_input(out, checkpoint)
    if out.suffix == ".xml":
        weights = out.with_suffix(".bin")
        refuse_input(weights, checkpoint)
        if os.path.lexists(weights) and not os.path.lexists(out):
            raise ValueError(
                f"{weights} exists without {out.name}, so it is no part of an earlier export, and the weights of "
                f"{out.name} would replace it: choose another output"
            )
        import_openvino()


def put_in_place(written: Path, out: Path) -> None:
    """Move a written file, and the .bin beside an .xml, to `out`. A mixture of two exports never bears that name."""
    if out.suffix == ".xml":
        out.unlink(missing_ok=True)
        os.replace(written.with_suffix(".bin"), out.with_suffix(".bin"))
    os.replace(written, out)


def _write_onnx(program: ExportedProgram, path: Path, about: str) -> None:
    onnx_program = torch.onnx.export(
        program,
        (),
        None,
        dynamo=True,
        opset_version=OPSET,
        verbose=False,
        input_names=["image", "mask"],
        output_names=_outputs(program),
    )
    onnx_program.model.metadata_props[ENTRY] = about
    onnx_program.save(path)


def _write_pt2(program: ExportedProgram, path: Path, about: str) -> None:
    torch.export.save(program, path, extra_files={ENTRY: about})


def _write_xml(program: ExportedProgram, path: Path, about: str) -> None:
    write_openvino(program, path, about, _outputs(program))


def _outputs(program: ExportedProgram) -> list[str]:
    return list(OUTPUTS[: len(program.graph_signature.user_outputs)])


_WRITERS = {".onnx": _write_onnx, ".pt2": _write_pt2, ".xml": _write_xml}
