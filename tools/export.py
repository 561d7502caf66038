"""Export a checkpoint to a file that runs without this library: ONNX, or torch.export's .pt2.

python -m tools.export RUN/checkpoint.pth detr.onnx
python -m tools.export RUN/checkpoint.pth detr.pt2

Inputs: `image`, float32 [B, 3, H, W], normalised with ImageNet's mean and standard deviation; `mask`, bool [B, H, W],
True where padded. Outputs: `logits` [B, Q, C+1]; `boxes` [B, Q, 4], cxcywh fractions; with a mask head also `masks`,
logits [B, Q, H/4, W/4]. B is arbitrary, H and W are at least 64.
The file is compared with the model at two sizes and two batch sizes, and deleted if it differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from datasets.coco import MAX_SIZE, VAL_SIZE
from models.load import Detector, load_detector
from tools.command import refuse_input, run_tool, say, tool_parser
from util.checkpoint import CheckpointError
from util.nested_tensor import NestedTensor

OPSET = 18
OUTPUTS = ("logits", "boxes", "masks")  # masks only with a mask head
TOLERANCE = 1e-3  # absolute, for each output
MIN_SIDE = 64  # pixels; below, a feature map can be one cell wide, which torch.export treats as a special case
CHECKED_SIZES = ((128, 160), (171, 97))  # (height, width)
CHECKED_BATCHES = (1, 2)

Runs = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class ImageAndMask(nn.Module):
    """A detector with plain tensors as inputs and outputs."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """image [B, 3, H, W], mask [B, H, W] → logits [B, Q, C+1], boxes [B, Q, 4] and, with a mask head, masks."""
        outputs = self.model(NestedTensor(image, mask))
        return tuple(outputs[f"pred_{name}"] for name in OUTPUTS if f"pred_{name}" in outputs)


def export(checkpoint: str | Path, out: Path) -> float:
    """Write a checkpoint's detector to `out`; the suffix, .onnx or .pt2, sets the format.

    The metadata entry `detr` of an ONNX file holds the class names and the sizes for resizing images, as JSON.

    Returns:
        The largest difference between the outputs of the file and of the model.

    Raises:
        ValueError: another suffix, or `out` is the checkpoint itself.
        CheckpointError: the checkpoint cannot be read, or the file's outputs differ and it was deleted.
    """
    writers = {".onnx": _write_onnx, ".pt2": _write_pt2}
    if out.suffix not in writers:
        raise ValueError(f"{out} must end in .onnx or .pt2, which sets the format")
    refuse_input(out, checkpoint)
    detector = load_detector(checkpoint, "cpu")
    getattr(detector.model, "detr", detector.model).aux_loss = False
    model = ImageAndMask(detector.model).eval()
    folder = out.with_name(f".{out.name}.{os.getpid()}")
    folder.mkdir(parents=True)
    try:
        unchecked = folder / out.name
        runs = writers[out.suffix](_trace(model), unchecked, detector)
        difference = check(model, runs)
        os.replace(unchecked, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return difference


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


def _write_onnx(program: ExportedProgram, path: Path, detector: Detector) -> Runs:
    import onnxruntime

    outputs = list(OUTPUTS[: len(program.graph_signature.user_outputs)])
    onnx_program = torch.onnx.export(
        program,
        (),
        None,
        dynamo=True,
        opset_version=OPSET,
        verbose=False,
        input_names=["image", "mask"],
        output_names=outputs,
    )
    about = {
        "classes": {category["id"]: category["name"] for category in detector.categories},
        "size": detector.args.val_size or VAL_SIZE,
        "max_size": detector.args.max_size or MAX_SIZE,
    }
    onnx_program.model.metadata_props["detr"] = json.dumps(about)
    onnx_program.save(path)
    session = onnxruntime.InferenceSession(path.read_bytes())

    def runs(image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        found = session.run(outputs, {"image": image.numpy(), "mask": mask.numpy()})
        return tuple(map(torch.from_numpy, found))

    return runs


def _write_pt2(program: ExportedProgram, path: Path, detector: Detector) -> Runs:
    torch.export.save(program, path)
    return torch.export.load(path).module()


def main(options: argparse.Namespace) -> None:
    """Export, and print how closely the file agrees with the model."""
    difference = export(options.checkpoint, options.out)
    say(f"wrote {options.out}: its outputs agree with the model's within {difference:.1e}")


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("checkpoint", help="a file or an http(s) address")
    parser.add_argument("out", type=Path, help="the file to write, .onnx or .pt2")
    return run_tool(parser, main, argv, packages='".[export]"')


if __name__ == "__main__":
    sys.exit(run())
