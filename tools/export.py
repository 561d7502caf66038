"""A checkpoint → one file that runs without this repository: ONNX, or torch.export's .pt2.

python -m tools.export RUN/checkpoint.pth detr.onnx
python -m tools.export RUN/checkpoint.pth detr.pt2

In go `image`, float32 [B, 3, H, W], normalised by ImageNet's mean and standard deviation, and `mask`, bool [B, H, W],
True where padded; out come `logits` [B, Q, C+1] and `boxes` [B, Q, 4], cxcywh fractions, of a model with a mask head
also `masks`, logits [B, Q, H/4, W/4]. B is free, H and W from 64 up.
The file is compared with the model at two sizes and two batches before it gets its name.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from datasets.coco import MAX_SIZE, VAL_SIZE
from models.load import Detector, load_detector
from util.checkpoint import CheckpointError
from util.nested_tensor import NestedTensor

OPSET = 18
OUTPUTS = ("logits", "boxes", "masks")  # the last of a model that has them
TOLERANCE = 1e-3  # of each
LEAST = 64  # pixels; below it a feature map is one cell wide, which torch.export treats as a case of its own
CHECKED_SIZES = ((128, 160), (171, 97))  # (height, width)
CHECKED_BATCHES = (1, 2)

Runs = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class ImageAndMask(nn.Module):
    """The detector with plain tensors in and out."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """image [B, 3, H, W], mask [B, H, W] → logits [B, Q, C+1], boxes [B, Q, 4], and masks if there are any."""
        outputs = self.model(NestedTensor(image, mask))
        return tuple(outputs[f"pred_{name}"] for name in OUTPUTS if f"pred_{name}" in outputs)


def export(checkpoint: str | Path, out: Path) -> float:
    """Write a checkpoint's detector to `out`; its ending, .onnx or .pt2, says how.

    An ONNX file tells in its metadata `detr`, as JSON, the class names and the sizes that images are resized to.

    Returns:
        The largest difference between the file's and the model's outputs.

    Raises:
        ValueError: another ending.
        CheckpointError: the checkpoint cannot be read, or the file computes something else and was removed.
    """
    writers = {".onnx": _write_onnx, ".pt2": _write_pt2}
    if out.suffix not in writers:
        raise ValueError(f"{out} ends in neither .onnx nor .pt2, and the ending says what to write: change it")
    detector = load_detector(checkpoint, "cpu")
    getattr(detector.model, "detr", detector.model).aux_loss = False
    model = ImageAndMask(detector.model).eval()
    folder = out.with_name(f".{out.name}.{os.getpid()}")
    folder.mkdir(parents=True)
    try:
        unproven = folder / out.name
        runs = writers[out.suffix](_trace(model), unproven, detector)
        difference = check(model, runs)
        os.replace(unproven, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return difference


def check(model: nn.Module, runs: Runs) -> float:
    """The largest difference between outputs of `model` and of what was exported, padded images among them.

    Raises:
        CheckpointError: it is above 1e-3.
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
                    f"the exported file does not compute what the model does: at batch {batch} of {height} x {width} "
                    f"pixels they differ by {difference:.2g}, allowed is {TOLERANCE:g}. It was removed"
                )
            largest = max(largest, difference)
    return largest


def _example(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Random images, the last one of them padded, and their mask."""
    generator = torch.Generator().manual_seed(height * width + batch)
    mask = torch.zeros(batch, height, width, dtype=torch.bool)
    mask[-1, height * 3 // 4 :] = mask[-1, :, width * 5 // 6 :] = True
    image = torch.randn(batch, 3, height, width, generator=generator)
    return image.masked_fill_(mask[:, None], 0), mask


def _trace(model: nn.Module) -> ExportedProgram:
    batch, height, width = Dim("batch", min=1), Dim("height", min=LEAST), Dim("width", min=LEAST)
    shapes = {"image": {0: batch, 2: height, 3: width}, "mask": {0: batch, 1: height, 2: width}}
    # Sizes of 1, and equal ones, would be taken for what is always so.
    return torch.export.export(model, _example(2, 96, 128), dynamic_shapes=shapes)


def _write_onnx(program: ExportedProgram, path: Path, detector: Detector) -> Runs:
    import onnxruntime

    outputs = list(OUTPUTS[: len(program.graph_signature.user_outputs)])
    names = {"input_names": ["image", "mask"], "output_names": outputs}
    onnx_program = torch.onnx.export(program, (), None, dynamo=True, opset_version=OPSET, verbose=False, **names)
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


def run(argv: list[str] | None = None) -> int:
    """The command; the exit code is 1 where something cannot be exported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="file or address")
    parser.add_argument("out", type=Path, help="the file to write, .onnx or .pt2")
    options = parser.parse_args(argv)
    try:
        difference = export(options.checkpoint, options.out)
    except ImportError as error:
        print(f"error: {error}: pip install onnx onnxscript onnxruntime", file=sys.stderr)
        return 1
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.out}: it computes what the model does within {difference:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(run())
