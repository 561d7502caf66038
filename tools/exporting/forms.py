"""The forms of an exported detector: what writes each, and what runs it. The suffix of a file names its form."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from tools.command import refuse_input
from tools.exporting.openvino_form import import_openvino, load_openvino, write_openvino

OPSET = 18
OUTPUTS = ("logits", "boxes", "masks")  # masks only with a mask head

Runs = Callable[[Tensor, Tensor], tuple[Tensor, ...]]  # image [B, 3, H, W], mask [B, H, W] → logits, boxes (, masks)


def write_form(program: ExportedProgram, path: Path, about: Mapping[str, Any]) -> None:
    """Write a traced detector to `path`; .onnx, .pt2 or .xml sets the form.

    Args:
        program: the detector, with the inputs `image` and `mask`.
        path: the file. OpenVINO's form is two files, .xml and beside it .bin.
        about: classes and image sizes, which .onnx and .xml hold under the name `detr`, as JSON.
    """
    _WRITERS[path.suffix](program, path, json.dumps(about))


def load_form(path: Path, threads: int | None = None, size: tuple[int, int, int] | None = None) -> Runs:
    """What runs a written file, by nothing but the file.

    Args:
        path: .onnx runs in ONNX Runtime, .pt2 in PyTorch, .xml in OpenVINO.
        threads: of the runtime, by default its own choice; those of PyTorch are the process's.
        size: (B, H, W), for .xml only: the model is compiled for this size alone, which is faster.
    """
    if path.suffix == ".onnx":
        return _load_onnx(path, threads)
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    return load_openvino(path, OUTPUTS, threads, size)


def check_output(out: Path, checkpoint: str | Path) -> None:
    """Refuse what cannot be written.

    Raises:
        ValueError: `out` names no form, or writing it would destroy the checkpoint or a foreign file.
        ToolError: OpenVINO is not installed and `out` is in its form.
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
    onnx_program.model.metadata_props["detr"] = about
    onnx_program.save(path)


def _load_onnx(path: Path, threads: int | None) -> Runs:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: a thread a core
    session = onnxruntime.InferenceSession(path.read_bytes(), options)
    outputs = [output.name for output in session.get_outputs()]

    def runs(image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        found = session.run(outputs, {"image": image.numpy(), "mask": mask.numpy()})
        return tuple(map(torch.from_numpy, found))

    return runs


def _write_pt2(program: ExportedProgram, path: Path, about: str) -> None:
    torch.export.save(program, path)


def _write_xml(program: ExportedProgram, path: Path, about: str) -> None:
    write_openvino(program, path, about, _outputs(program))


def _outputs(program: ExportedProgram) -> list[str]:
    return list(OUTPUTS[: len(program.graph_signature.user_outputs)])


_WRITERS = {".onnx": _write_onnx, ".pt2": _write_pt2, ".xml": _write_xml}
