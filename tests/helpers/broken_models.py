"""A tiny detector, a batch for it, and what breaks them: for the tests of what finds the break."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models import build_model
from tests.helpers.runs import parse
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list

NAN, INF = math.nan, math.inf


def detector(*more: str) -> tuple[nn.Module, nn.Module]:
    """A tiny DETR in training mode and its criterion."""
    torch.manual_seed(0)
    model, criterion, _ = build_model(parse("unread", "--num_classes", "4", *more))
    return model.train(), criterion


def batch() -> tuple[NestedTensor, list[dict[str, Tensor]]]:
    """Two images of different sizes with an object each."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, *size, generator=generator) for size in ((64, 48), (48, 64))]
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.3]])
    targets = [{"labels": torch.tensor([i]), "boxes": boxes, "image_id": torch.tensor([17 + i])} for i in range(2)]
    return nested_tensor_from_tensor_list(images), targets


def spoil(tensor: Tensor, value: float = NAN) -> None:
    with torch.no_grad():
        tensor.view(-1)[0] = value


class Explode(nn.Module):
    """Passes on what it gets, too large for its type."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1e30 * 1e30


class _NanGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * NAN


class NanGradient(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _NanGradient.apply(x)
