"""A detector of a few lines in the forms of `tools.export`, which are written in a moment."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from tools.exporting.forms import write_form

ABOUT = {"classes": {"1": "cat", "2": "dog"}, "size": 96, "max_size": 128}
SUFFIXES = (".onnx", ".pt2", ".xml") if find_spec("openvino") else (".onnx", ".pt2")


class Toy(nn.Module):
    """Two queries: a cat, the surer the brighter the image is, and nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor([[-5.0, 1.0, -5.0, 0.0], [0.0, 0.0, 0.0, 9.0]]))
        self.places = nn.Parameter(torch.tensor([[0.5, 0.5, 0.25, 0.5], [0.1, 0.1, 0.1, 0.1]]))

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """image [B, 3, H, W], mask [B, H, W] → logits [B, 2, 4], boxes [B, 2, 4]"""
        brightness = image.mean((1, 2, 3)) * (~mask).float().mean((1, 2))
        return self.scores + brightness[:, None, None].relu() * self.scores, self.places + 0 * brightness[:, None, None]


def write_toy(folder: Path, name: str = "toy", suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Write NAME.onnx, NAME.pt2, and NAME.xml with NAME.bin."""
    inputs = torch.randn(2, 3, 96, 128), torch.zeros(2, 96, 128, dtype=torch.bool)
    batch, height, width = Dim("batch", min=1), Dim("height", min=64), Dim("width", min=64)
    shapes = {"image": {0: batch, 2: height, 3: width}, "mask": {0: batch, 1: height, 2: width}}
    program = torch.export.export(Toy().eval(), inputs, dynamic_shapes=shapes)
    for suffix in suffixes:
        write_form(program, folder / f"{name}{suffix}", ABOUT)
