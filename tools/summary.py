"""Count the parameters, FLOPs and output shapes of a detector, part by part, without running or downloading anything.

python -m tools.summary --backbone resnet101 --dilation --size 800 1333     # the model flags of main.py
python -m tools.summary RUN/checkpoint.pth

FLOPs are those of convolutions and matrix products for one image. A multiply-add counts as two; in table 1 of the paper
it counts as one.
"""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from datasets.transforms import get_size_with_aspect_ratio
from models import build_model
from models.load import load_detector
from prediction.speed import PHOTO
from tools.command import run_tool, tool_parser
from util.arguments import check_args, get_args_parser
from util.nested_tensor import NestedTensor

PARTS = {  # title → submodule of the detector
    "backbone": "backbone.0",
    "position encoding": "backbone.1",
    "input projection": "input_proj",
    "encoder": "transformer.encoder",
    "decoder": "transformer.decoder",
    "class head": "class_embed",
    "box head": "bbox_embed",
    "query embeddings": "query_embed",
}
MASK_PARTS = {"mask attention": "bbox_attention", "mask head": "mask_head"}


@dataclass(frozen=True)
class Row:
    """One part of a detector, or the whole.

    Attributes:
        title: its name.
        parameters, trainable: numbers of parameters; buffers, such as those of frozen batch norms, do not count.
        flops: for one image.
        shapes: of its outputs for one image.
    """

    title: str
    parameters: int
    trainable: int
    flops: int
    shapes: list[list[int]]


def summarize(model: nn.Module, size: tuple[int, int]) -> list[Row]:
    """Count a `models.detr.DETR`, or a `DETRsegm` around one, part by part.

    Args:
        model: on any device, including "meta"; a copy without values is traced, not the model itself.
        size: (H, W) of the model's input, in pixels.

    Returns:
        A row for each of `PARTS`, with a mask head also of `MASK_PARTS`, and the total.

    Raises:
        ValueError: the model does not accept this size.
    """
    if min(size) < 1:
        raise ValueError(f"--size must be at least 1 x 1, got {size[0]} x {size[1]}")
    model = copy.deepcopy(model).to("meta").eval()
    detector, parts = model, PARTS
    if hasattr(model, "detr"):
        detector, parts = model.detr, {title: f"detr.{name}" for title, name in PARTS.items()} | MASK_PARTS
    detector.aux_loss = False
    shapes = {parts["query embeddings"]: [list(detector.query_embed.weight.shape)]}  # never called, so it has no hook
    for name in parts.values():
        model.get_submodule(name).register_forward_hook(_recorder(shapes, name))
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        outputs = model(NestedTensor(torch.empty(1, 3, *size), torch.empty(1, *size, dtype=torch.bool)))
    flops = {name: sum(by_operator.values()) for name, by_operator in counter.get_flop_counts().items()}
    root = type(model).__name__
    rows = [
        _row(title, model.get_submodule(name), flops.get(f"{root}.{name}", 0), shapes[name])
        for title, name in parts.items()
    ]
    return [*rows, _row("total", model, counter.get_total_flops(), _shapes(outputs))]


def _row(title: str, module: nn.Module, flops: int, shapes: list[list[int]]) -> Row:
    parameters = list(module.parameters())
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return Row(title, sum(parameter.numel() for parameter in parameters), trainable, flops, shapes)


def _recorder(shapes: dict[str, list[list[int]]], name: str) -> Any:
    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        shapes[name] = _shapes(output)

    return record


def _shapes(output: Any) -> list[list[int]]:
    """The shapes of the tensors that a part returns, without masks."""
    if isinstance(output, NestedTensor):
        output = output.tensors
    if isinstance(output, Tensor):
        return [list(output.shape)]
    return [shape for value in (output.values() if isinstance(output, Mapping) else output) for shape in _shapes(value)]


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text, the total below a line."""
    cells = [("part", "parameters", "trainable", "GFLOPs", "output for one image")]
    for row in rows:
        shapes = ", ".join(map(str, row.shapes))
        cells.append((row.title, f"{row.parameters:,}", f"{row.trainable:,}", f"{row.flops / 1e9:,.3f}", shapes))
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = [
        "  ".join([f"{title:<{widths[0]}}", *(f"{n:>{width}}" for n, width in zip(numbers, widths[1:])), shapes])
        for title, *numbers, shapes in cells
    ]
    return "\n".join([*lines[:-1], "-" * max(map(len, lines)), lines[-1]])


def _model_of(options: argparse.Namespace, parser: argparse.ArgumentParser) -> tuple[nn.Module, argparse.Namespace]:
    """The detector that the command line describes, and its settings."""
    if options.checkpoint:
        given = [name for name, value in vars(options).items() if value != parser.get_default(name)]
        flags = [f"--{name}" for name in given if name not in ("checkpoint", "size")]
        if flags:
            raise ValueError(f"{options.checkpoint} holds the settings of its model: omit {', '.join(flags)}")
        model, _, args, _ = load_detector(options.checkpoint, "cpu")
        return model, args
    vars(options).update(device="meta", backbone_weights="none", data=None, coco_path="no data are read")
    check_args(options)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about frozen layers without weights, which do not matter here
        return build_model(options)[0], options


def main(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Print the table of the model that the command line describes."""
    model, args = _model_of(options, parser)
    size = tuple(options.size or get_size_with_aspect_ratio(PHOTO, args.val_size, args.max_size))
    rows = summarize(model, size)
    print(f"input {size[0]} x {size[1]} pixels (height, width); a multiply-add counts as two FLOPs\n")
    print(table(rows))


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    usage = "%(prog)s [-h] [--size H W] [--flag VALUE ...] [checkpoint]"
    parser = tool_parser(__doc__, parents=[get_args_parser()], usage=usage)
    parser.add_argument("checkpoint", nargs="?", help="a file or an http(s) address, instead of model flags")
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="input size in pixels (default: that of a resized 4:3 photo)",
    )
    return run_tool(parser, lambda options: main(options, parser), argv)


if __name__ == "__main__":
    sys.exit(run())
