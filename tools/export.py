"""Export a checkpoint to files that run without this library: ONNX, torch.export's .pt2, OpenVINO's .xml.

python -m tools.export RUN/checkpoint.pth detr.onnx
python -m tools.export RUN/checkpoint.pth detr.onnx detr.pt2 detr.xml

Inputs: `image`, float32 [B, 3, H, W], normalised with ImageNet's mean and standard deviation; `mask`, bool [B, H, W],
True where padded. Outputs: `logits` [B, Q, C+1]; `boxes` [B, Q, 4], cxcywh fractions; with a mask head also `masks`,
logits [B, Q, H/4, W/4]. B is arbitrary, H and W are at least 64.
Each file is compared with the model at two sizes and two batch sizes, and deleted if it differs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from datasets.coco import MAX_SIZE, VAL_SIZE
from models.load import load_detector
from tools.command import run_tool, say, tool_parser
from tools.exporting.forms import OUTPUTS, Runs, check_output, load_form, put_in_place, write_form
from util.checkpoint import CheckpointError
from util.nested_tensor import NestedTensor

TOLERANCE = 1e-3  # absolute, for each output
MIN_SIDE = 64  # pixels; below, a feature map can be one cell wide, which torch.export treats as a special case
CHECKED_SIZES = ((128, 160), (171, 97))  # (height, width)
CHECKED_BATCHES = (1, 2)


class ImageAndMask(nn.Module):
    """A detector with plain tensors as inputs and outputs."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """image [B, 3, H, W], mask [B, H, W] → logits [B, Q, C+1], boxes [B, Q, 4] and, with a mask head, masks."""
        outputs = self.model(NestedTensor(image, mask))
        return tuple(outputs[f"pred_{name}"] for name in OUTPUTS if f"pred_{name}" in outputs)


def export(checkpoint: str | Path, outs: Sequence[Path]) -> dict[Path, float]:
    """Write a checkpoint's detector to each of `outs`; the suffix, .onnx, .pt2 or .xml, sets the form.

    The entry `detr` of an ONNX file's metadata, and of `rt_info` in OpenVINO's form, holds the class names and the
    sizes for resizing images, as JSON. The weights of OpenVINO's form are in a .bin file beside the .xml.

    Returns:
        File → the largest difference between its outputs and the model's.

    Raises:
        ValueError: another suffix, or a file that would be lost.
        ImportError: the package that writes or runs a form is missing.
        CheckpointError: the checkpoint cannot be read, or a file's outputs differ and it was deleted.
    """
    for out in outs:
        check_output(out, checkpoint)
    detector = load_detector(checkpoint, "cpu")
    getattr(detector.model, "detr", detector.model).aux_loss = False
    model = ImageAndMask(detector.model).eval()
    about = {
        "classes": {category["id"]: category["name"] for category in detector.categories},
        "size": detector.args.val_size or VAL_SIZE,
        "max_size": detector.args.max_size or MAX_SIZE,
    }
    program = _trace(model)
    differences = {}
    for out in outs:
        with _folder_beside(out) as folder:
            unchecked = folder / out.name
            write_form(program, unchecked, about)
            differences[out] = check(model, load_form(unchecked))
            put_in_place(unchecked, out)
    return differences


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A folder on the same file system, for files that are not checked yet."""
    folder = out.with_name(f".{out.name}.{os.getpid()}")
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check(model: nn.Module, runs: Runs) -> float:
    """The largest difference between the outputs of `model` and of the exported file, also on padded images.

    Raises:
        CheckpointError: it exceeds 1e-3.
    """
    largest = 0.0
    for height, width in CHECKED_SIZES:
        for batch in CHECKED_BATCHES:
            image, mask = _example(batch, height, width)
            with torch.no_grad():
                pairs = list(zip(model(image, mask), runs(image, mask)))
            difference = max((one - other).abs().max().item() for one, other in pairs)
            if not difference <= TOLERANCE:
                raise CheckpointError(
                    f"the exported file gives different results from the model: with {batch} x {height} x {width} "
                    f"pixels the outputs differ by {difference:.2g}, the limit is {TOLERANCE:g}. It was deleted"
                )
            largest = max(largest, difference)
    return largest


def _example(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Random images, the last one padded, and their mask."""
    generator = torch.Generator().manual_seed(height * width + batch)
    mask = torch.zeros(batch, height, width, dtype=torch.bool)
    mask[-1, height * 3 // 4 :] = mask[-1, :, width * 5 // 6 :] = True
    image = torch.randn(batch, 3, height, width, generator=generator)
    return image.masked_fill_(mask[:, None], 0), mask


def _trace(model: nn.Module) -> ExportedProgram:
    batch, height, width = Dim("batch", min=1), Dim("height", min=MIN_SIDE), Dim("width", min=MIN_SIDE)
    shapes = {"image": {0: batch, 2: height, 3: width}, "mask": {0: batch, 1: height, 2: width}}
    # Sizes of 1, or equal sizes, would be taken for constants.
    return torch.export.export(model, _example(2, 96, 128), dynamic_shapes=shapes)


def main(options: argparse.Namespace) -> None:
    """Export, and print how closely each file agrees with the model."""
    for out, difference in export(options.checkpoint, options.outs).items():
        say(f"wrote {out}: its outputs agree with the model's within {difference:.1e}")


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("checkpoint", help="a file or an http(s) address")
    parser.add_argument("outs", nargs="+", type=Path, metavar="out", help="a file to write: .onnx, .pt2 or .xml")
    return run_tool(parser, main, argv, packages='".[export]"')


if __name__ == "__main__":
    sys.exit(run())
