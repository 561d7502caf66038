"""What runs each form of an exported detector. The suffix of a file names its form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from prediction.exported.onnx_file import load_onnx
from prediction.exported.openvino import compile_openvino, read_openvino
from prediction.exported.torch_archive import read_torch_archive

OUTPUTS = ("logits", "boxes", "masks")  # masks only with a mask head
SUFFIXES = (".onnx", ".pt2", ".xml")
MIN_SIDE = 64  # pixels; below, a feature map can be one cell wide, which torch.export treats as a special case

Runs = Callable[[Tensor, Tensor], tuple[Tensor, ...]]  # image [B, 3, H, W], mask [B, H, W] → logits, boxes (, masks)


def load_form(path: Path, threads: int | None = None, size: tuple[int, int, int] | None = None) -> Runs:
    """What runs a written file, by nothing but the file.

    Args:
        path: .onnx runs in ONNX Runtime, .pt2 in PyTorch, .xml in OpenVINO.
        threads: of the runtime, by default its own choice; those of PyTorch are the process's.
        size: (B, H, W), for .xml only: the model is compiled for this size alone, which is faster.
    """
    return load_with_entry(path, threads, size)[0]


def load_with_entry(
    path: Path, threads: int | None = None, size: tuple[int, int, int] | None = None, weights: Path | None = None
) -> tuple[Runs, str | None]:
    """As `load_form`, with the text of the file's entry `detr`; None if it has none.

    Args:
        weights: the .bin of an .xml, by default the file of the same name beside it.
    """
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return load_onnx(path, threads)
    if suffix == ".pt2":
        program, entry = read_torch_archive(path)
        return program.module().__call__, entry  # a function: as a module in another it could not be set to `eval()`
    model, entry = read_openvino(path, weights)
    return compile_openvino(model, OUTPUTS, threads, size), entry
