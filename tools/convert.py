"""Convert detectors to Hugging Face's `DetrForObjectDetection` and back; each conversion is verified.

python -m tools.convert RUN/checkpoint.pth FOLDER          # writes a folder for DetrForObjectDetection.from_pretrained
python -m tools.convert RUN/checkpoint.pth FOLDER --timm   # with timm's backbone, as in the published folders
python -m tools.convert FOLDER checkpoint.pth              # reads config.json and model.safetensors

Class names, their thresholds, and the sizes and the normalisation of images are converted too:
preprocessor_config.json is written and read. Converted there and back, a detector finds the same objects.
Hugging Face's `DetrImageProcessorPil` prepares an image exactly as this library does, `DetrImageProcessor` within one
level of 255. Where --max_size limits the long side, the published rounding, which this library keeps, gives another
long side: mostly by one pixel, by more for images several times as long as wide.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.load import load_detector
from tools.command import refuse_existing, run_tool, say, tool_parser
from tools.convert_keys import from_huggingface, to_huggingface
from tools.convert_settings import (
    CATEGORIES,
    THRESHOLDS,
    our_categories,
    our_settings,
    our_sizes,
    our_thresholds,
    read_config,
    their_classes,
    their_processing,
    their_settings,
    their_thresholds,
)
from util.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from util.nested_tensor import NestedTensor
from util.text import printable

TOLERANCE = 1e-4  # absolute, for logits and boxes


def convert_to_huggingface(checkpoint: str | Path, folder: Path, timm: bool = False) -> float:
    """Write a checkpoint of this library, or a published one, as a folder that transformers can load.

    Args:
        checkpoint: a file or an address, see `models.load.load_detector`.
        folder: receives config.json, preprocessor_config.json and model.safetensors; must not exist.
        timm: use timm's names for the backbone. Loading the folder then needs timm. Required for --dilation, which
            can be converted for ResNet-50 and deeper only.

    Returns:
        The largest difference between the logits and boxes of the two models.

    Raises:
        ValueError: Hugging Face's model lacks a setting of this one, or the folder exists.
        CheckpointError: the checkpoint cannot be read, or the two models differ; nothing is written.
    """
    refuse_existing(folder, "folder")
    import transformers
    from safetensors.torch import save_file

    loaded = load_checkpoint(checkpoint)
    detector = load_detector(loaded, "cpu", source=str(checkpoint))
    num_classes = detector.args.num_classes
    classes = their_classes(detector.categories, num_classes)
    config = transformers.DetrConfig(**their_settings(detector.args, timm), **classes)
    config.architectures = ["DetrForObjectDetection"]
    setattr(config, CATEGORIES, detector.categories)
    processor = transformers.DetrImageProcessor(**their_processing(detector.args))
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".converting-"))
    try:
        partial.chmod(0o777 & ~_umask())  # temporary folders are private
        processor.save_pretrained(partial)
        weights = to_huggingface(detector.model.state_dict(), timm)
        if loaded.get("thresholds"):
            setattr(config, THRESHOLDS, their_thresholds(loaded["thresholds"], weights))
        config.save_pretrained(partial)
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
        difference = verify(detector.model, _load_theirs(partial))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return difference


def convert_from_huggingface(folder: Path, out: Path) -> float:
    """Write a folder of transformers as a checkpoint of this library; returns and raises as `convert_to_huggingface`.

    Settings and class names are taken from config.json, sizes from preprocessor_config.json; both are stored in the
    checkpoint. `out` must not exist.
    """
    refuse_existing(out, "file")
    import transformers
    from safetensors.torch import load_file

    written = read_config(folder)
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder} has no model.safetensors: save the model with save_pretrained as a single file")
    try:
        config = transformers.DetrConfig.from_pretrained(folder)
    except Exception as error:  # whatever the checks of transformers raise
        cause = printable(" ".join(str(error).split()))
        raise ValueError(f"transformers cannot read {folder / 'config.json'}: {cause}") from error
    weights = load_file(folder / "model.safetensors")
    checkpoint = {
        "model": from_huggingface(weights),
        "args": our_settings(config) | our_sizes(folder),
        "categories": our_categories(written, config.id2label) or None,
    }
    thresholds = our_thresholds(written, weights)
    if thresholds is not None:
        checkpoint["thresholds"] = thresholds
    difference = verify(load_detector(checkpoint, "cpu").model, _load_theirs(folder))
    save_checkpoint(out, checkpoint)
    return difference


@torch.no_grad()
def verify(ours: nn.Module, theirs: nn.Module) -> float:
    """The largest difference between the logits and boxes of two models on two random images, one of them padded.

    Raises:
        CheckpointError: it exceeds 1e-4.
    """
    images = torch.randn(2, 3, 128, 160, generator=torch.Generator().manual_seed(0))
    padding = torch.zeros(2, 128, 160, dtype=torch.bool)
    padding[1, 96:] = padding[1, :, 120:] = True
    images.masked_fill_(padding[:, None], 0)
    outputs = ours.eval()(NestedTensor(images, padding))
    others = theirs.eval()(pixel_values=images, pixel_mask=(~padding).long())  # there 1 is image, 0 padding
    pairs = ((outputs["pred_logits"], others.logits), (outputs["pred_boxes"], others.pred_boxes))
    difference = max(_largest_difference(one, other) for one, other in pairs)
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"the converted model gives different results: logits or boxes differ by {difference:.2g}, the limit is "
            f"{TOLERANCE:g}. Nothing was written; the model has a part that this converter does not support"
        )
    return difference


def _largest_difference(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item() if one.shape == other.shape else float("inf")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _load_theirs(folder: Path) -> nn.Module:
    import transformers

    try:
        return transformers.DetrForObjectDetection.from_pretrained(folder)
    except ImportError as error:
        raise ValueError(f"transformers cannot build the model ({error}): pip install timm") from error
    except RuntimeError as error:  # sizes that differ; the details are logged by transformers
        raise ValueError(
            f"transformers cannot load {folder / 'model.safetensors'} with the settings in config.json: the weights "
            "are those of another configuration (number of labels, sizes)"
        ) from error


def main(options: argparse.Namespace) -> None:
    """Convert in the direction that the source implies."""
    if (Path(options.source) / "config.json").is_file():
        difference = convert_from_huggingface(Path(options.source), options.out)
    else:
        difference = convert_to_huggingface(options.source, options.out, options.timm)
    say(f"wrote {options.out}: logits and boxes of both models agree within {difference:.1e}")


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("source", help="a checkpoint of this library, or a folder of transformers")
    parser.add_argument("out", type=Path, help="the folder or checkpoint to write")
    parser.add_argument("--timm", action="store_true", help="name the backbone's weights as timm does")
    return run_tool(parser, main, argv, packages='".[convert]"')


if __name__ == "__main__":
    sys.exit(run())
