"""The convolution of a doubled map: values and gradients of the plain form, at even, odd and other sizes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.fast import resized_conv
from models.fast.resized_conv import conv_of_resized

FAST_SIZES = [(10, 14), (9, 14), (10, 13), (9, 13)]  # of a map of 5 × 7
OTHER_SIZES = [(5, 7), (8, 14), (11, 14), (10, 20)]


def plain(x: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    return F.conv2d(F.interpolate(x, size=size, mode="nearest"), weight, padding=1)


def draw(h: int = 5, w: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 6, h, w, generator=generator, dtype=torch.float64, requires_grad=True)
    return x, torch.randn(4, 6, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("size", FAST_SIZES + OTHER_SIZES)
def test_values_and_gradients_equal_the_plain_form(size):
    x, weight = draw()
    expected, found = plain(x, weight, size), conv_of_resized(x, weight, *size)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    slope = torch.randn(expected.shape, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, weight), slope), torch.autograd.grad(expected, (x, weight), slope)
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12 * theirs.abs().max().item())


@pytest.mark.parametrize("h, w, size", [(1, 1, (1, 1)), (1, 1, (2, 2)), (1, 4, (1, 7)), (2, 1, (3, 2))])
def test_the_smallest_maps(h, w, size):
    x, weight = draw(h, w)
    torch.testing.assert_close(conv_of_resized(x, weight, *size), plain(x, weight, size), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", FAST_SIZES)
def test_the_large_map_is_not_built_for_sizes_between_levels(size, monkeypatch):
    resized = []
    interpolate = F.interpolate
    monkeypatch.setattr(
        F, "interpolate", lambda x, size, mode: (resized.append(tuple(size)), interpolate(x, size, mode=mode))[1]
    )
    x, weight = draw()
    conv_of_resized(x, weight, *size)
    assert size not in resized
    conv_of_resized(x, weight, 8, 14)
    assert (8, 14) in resized


@pytest.mark.parametrize("ratio", [83, 167, 667, 1000, 2000])
def test_an_odd_size_takes_the_same_neighbours_as_doubling(ratio):
    """The fast form relies on it: PyTorch computes the neighbours of 2h - 1 cells in float32."""
    row = torch.arange(ratio, dtype=torch.float64)[None, None, None]
    odd = F.interpolate(row, size=[1, 2 * ratio - 1], mode="nearest")
    assert torch.equal(odd, F.interpolate(row, size=[1, 2 * ratio], mode="nearest")[..., :-1])


def test_exported_and_compiled_models_take_the_plain_form(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(resized_conv, "doubled_kernel", None)
    x, weight = draw()
    assert torch.equal(conv_of_resized(x, weight, 10, 14), plain(x, weight, (10, 14)))
