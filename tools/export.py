"""Export a checkpoint to files that run without this library: ONNX, torch.export's .pt2, OpenVINO's .xml.

python -m tools.export RUN/checkpoint.pth detr.onnx
python -m tools.export RUN/checkpoint.pth detr.onnx detr.pt2 detr.xml --time
python -m tools.export RUN/checkpoint.pth detr.xml --int8 --calibrate FOLDER_OF_IMAGES
python -m tools.export RUN/checkpoint.pth detr.onnx --triton MODEL_REPOSITORY

Inputs: `image`, float32 [B, 3, H, W], normalised with ImageNet's mean and standard deviation; `mask`, bool [B, H, W],
True where padded. Outputs: `logits` [B, Q, C+1]; `boxes` [B, Q, 4], cxcywh fractions; with a mask head also `masks`,
logits [B, Q, H/4, W/4]. B is arbitrary, H and W are at least 64, with learned positions at most 1600.
Each file is compared with the model at two sizes and two batch sizes, and deleted if it differs. With --int8, half of
the calibration images show whether the file still finds the model's objects.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from datasets.coco import MAX_SIZE, VAL_SIZE
from datasets.transforms import get_size_with_aspect_ratio
from models.fast.inference import optimize_for_inference
from models.load import Detector, load_detector
from models.position_encoding import PositionEmbeddingLearned
from prediction.exported.forms import MIN_SIDE, OUTPUTS, Runs, load_form, load_with_entry
from tools.command import run_tool, say, tool_parser
from tools.exporting.forms import check_output, put_in_place, write_form
from tools.exporting.int8 import calibration_images, import_nncf, prove, write_int8
from tools.exporting.latency import latency_table
from tools.exporting.triton import CONFIG, write_triton
from util.checkpoint import CheckpointError, load_checkpoint
from util.loading.class_thresholds import is_thresholds
from util.nested_tensor import NestedTensor

TOLERANCE = 1e-3  # absolute, for each output
CHECKED_SIZES = ((128, 160), (171, 97))  # (height, width)
CHECKED_BATCHES = (1, 2)


class ImageAndMask(nn.Module):
    """A detector with plain tensors as inputs and outputs, for images of at most `max_side` pixels a side."""

    def __init__(self, model: nn.Module, max_side: int | None = None):
        super().__init__()
        self.model, self.max_side = model, max_side

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """image [B, 3, H, W], mask [B, H, W] → logits [B, Q, C+1], boxes [B, Q, 4] and, with a mask head, masks."""
        outputs = self.model(NestedTensor(image, mask))
        return tuple(outputs[f"pred_{name}"] for name in OUTPUTS if f"pred_{name}" in outputs)


class Agreement(NamedTuple):
    """How closely a file agrees with the model that it was written from."""

    difference: float  # the largest between outputs; with int8, of the file before it was quantised
    objects: int = 0  # with int8: those that the model finds in the images of the proof
    found_again: int = 0


def export(checkpoint: str | Path, outs: Sequence[Path], calibrate: Path | None = None) -> dict[Path, Agreement]:
    """Write a checkpoint's detector to each of `outs`; the suffix, .onnx, .pt2 or .xml, sets the form.

    The entry `detr` of a file's metadata (ONNX: its metadata, OpenVINO: `rt_info`, .pt2: `extra_files`) holds the
    class names, the sizes for resizing images and, if the checkpoint has them, the thresholds of the classes, as JSON.
    The weights of OpenVINO's form are in a .bin file beside the .xml.

    Args:
        checkpoint: a file or an http(s) address.
        outs: the files to write.
        calibrate: a folder of images; the convolutions of OpenVINO's form are then in int8.

    Raises:
        ValueError: another suffix, a file that would be lost, or fewer than two images.
        ImportError, ToolError: a package that writes a form is missing.
        CheckpointError: the checkpoint cannot be read, a file disagrees with the model and was deleted, or a package
            that runs a form is missing.
    """
    for out in outs:
        check_output(out, checkpoint)
        if calibrate is not None and out.suffix != ".xml":
            raise ValueError(f"{out} cannot be in int8: --int8 writes OpenVINO's form only, a file that ends in .xml")
    if calibrate is not None:
        import_nncf()
    loaded = load_checkpoint(checkpoint)
    model, detector = load_exportable(loaded, os.fspath(checkpoint))
    about = _about(detector, loaded.get("thresholds"))
    images, others = [], []
    if calibrate is not None:
        images, others = calibration_images(calibrate, about["size"], about["max_size"])
    program = _trace(model)
    agreements = {}
    for out in outs:
        with _folder_beside(out) as folder:
            unchecked = folder / out.name
            write_form(program, unchecked, about)
            agreement = Agreement(check(model, load_form(unchecked)))
            if images:
                floats, unchecked = unchecked, folder / f"int8-{out.name}"  # another name: OpenVINO maps the first file
                write_int8(floats, unchecked, images)
                agreement = Agreement(agreement.difference, *prove(model, load_form(unchecked), others))
            put_in_place(unchecked, out)
            agreements[out] = agreement
    return agreements


def load_exportable(loaded: Mapping[str, Any], source: str) -> tuple[ImageAndMask, Detector]:
    """The model of a loaded checkpoint as it is exported, and the detector that it is a part of, on the CPU."""
    detector = load_detector(loaded, "cpu", source=source)
    getattr(detector.model, "detr", detector.model).aux_loss = False
    stride = 16 if detector.args.dilation else 32
    learned = [part for part in detector.model.modules() if isinstance(part, PositionEmbeddingLearned)]
    max_side = stride * learned[0].row_embed.num_embeddings if learned else None
    return ImageAndMask(detector.model, max_side).eval(), detector


def _about(detector: Detector, thresholds: Any) -> dict[str, Any]:
    """What a file says of itself, see `prediction.exported.about.About`."""
    about = {
        "classes": {category["id"]: category["name"] for category in detector.categories},
        "size": detector.args.val_size or VAL_SIZE,
        "max_size": detector.args.max_size or MAX_SIZE,
    }
    if "panoptic" in detector.postprocessors:
        is_thing = detector.postprocessors["panoptic"].is_thing_map
        about["things"] = [label for label, thing in is_thing.items() if thing]
    if is_thresholds(thresholds):
        about["thresholds"] = thresholds
    return about


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


def _trace(model: ImageAndMask) -> ExportedProgram:
    batch = Dim("batch", min=1)
    height, width = (Dim(name, min=MIN_SIDE, max=model.max_side) for name in ("height", "width"))
    shapes = {"image": {0: batch, 2: height, 3: width}, "mask": {0: batch, 1: height, 2: width}}
    # Sizes of 1, or equal sizes, would be taken for constants.
    return torch.export.export(model, _example(2, 96, 128), dynamic_shapes=shapes)


def main(options: argparse.Namespace) -> None:
    """Export, print how closely each file agrees with the model, and how fast it is."""
    if options.int8 != (options.calibrate is not None):
        raise ValueError("--int8 and --calibrate FOLDER go together: the folder's images show the range of each number")
    if options.time_size and min(options.time_size) < MIN_SIDE or options.threads is not None and options.threads < 1:
        raise ValueError(f"--time_size must be at least {MIN_SIDE} {MIN_SIDE}, and --threads at least 1")
    if options.triton and [out.suffix for out in options.outs] != [".onnx"]:
        raise ValueError("--triton REPOSITORY needs one output, an .onnx, whose name becomes the model's")
    for out, agreement in export(options.checkpoint, options.outs, options.calibrate).items():
        sentence = f"its outputs agree with the model's within {agreement.difference:.1e}"
        if options.int8:
            sentence = f"in int8, {agreement.found_again} of the model's {agreement.objects} objects are found again"
        say(f"wrote {out}: {sentence}")
    if options.triton:
        entry = load_with_entry(options.outs[0])[1] or ""
        served = write_triton(options.outs[0], options.triton, entry)
        say(f"wrote {served}: its {CONFIG} agrees with the model's inputs and outputs")
    if options.time:
        model, detector = load_exportable(load_checkpoint(options.checkpoint), options.checkpoint)
        short, longest = detector.args.val_size or VAL_SIZE, detector.args.max_size or MAX_SIZE
        size = options.time_size or get_size_with_aspect_ratio((640, 480), short, longest)
        models = {"as built": model, "optimize_for_inference": ImageAndMask(optimize_for_inference(model.model))}
        say(latency_table(models, options.outs, tuple(size), options.threads or torch.get_num_threads()))


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("checkpoint", help="a file or an http(s) address")
    parser.add_argument("outs", nargs="+", type=Path, metavar="out", help="a file to write: .onnx, .pt2 or .xml")
    parser.add_argument("--int8", action="store_true", help="write .xml with convolutions in 8-bit integers")
    parser.add_argument("--calibrate", type=Path, metavar="FOLDER", help="images like those that the model will see")
    parser.add_argument(
        "--triton", type=Path, metavar="REPOSITORY", help="also put the .onnx into this model repository"
    )
    parser.add_argument("--time", action="store_true", help="print the latency of each file beside the model's")
    size = "of the timed image, by default that of a 4:3 image in validation"
    parser.add_argument("--time_size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help=size)
    parser.add_argument("--threads", type=int, help="of each runtime that is timed, by default PyTorch's choice")
    return run_tool(parser, main, argv, packages='".[export]"')


if __name__ == "__main__":
    sys.exit(run())
