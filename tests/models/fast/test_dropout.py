"""Dropout from 16 random bits an element."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.fast.dropout import LEVELS, Dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_of_zeros_and_the_scale_fit_the_rate(p):
    torch.manual_seed(0)
    count = 400_003  # not a multiple of the four elements of one draw
    out = dropout(torch.ones(count), p, training=True)
    dropped = round(p * LEVELS) / LEVELS
    zeros = float((out == 0).double().mean())
    assert abs(zeros - dropped) < 5 * (p * (1 - p) / count) ** 0.5  # five standard deviations
    torch.testing.assert_close(out.unique(), torch.tensor([0, 1 / (1 - dropped)]))


def test_neighbours_are_dropped_independently():
    torch.manual_seed(1)
    kept = (dropout(torch.ones(40_000, 4), 0.5, training=True) != 0).double()  # a row is one draw
    correlation = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlation.abs().max() < 5 / 40_000**0.5


def test_the_gradient_has_the_mask_and_scale_of_the_output():
    torch.manual_seed(2)
    x = torch.randn(7, 5, 3, dtype=torch.float64, requires_grad=True)
    out = dropout(x, 0.3, training=True)
    out.sum().backward()
    torch.testing.assert_close(x.grad * x, out)
    assert 0 < (x.grad == 0).sum() < x.numel()


def test_the_generator_decides_the_mask():
    x = torch.ones(1000)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5, True), dropout(x, 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5, True), first) and not torch.equal(first, second)


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.4, False), (1.0, True)])
def test_without_a_mask_it_is_pytorchs(p, training):
    x = torch.randn(50)
    assert torch.equal(dropout(x, p, training), F.dropout(x, p, training))


def test_the_module_follows_its_mode_and_is_pytorchs_to_others():
    module = Dropout(0.5)
    x = torch.ones(100)
    assert isinstance(module, nn.Dropout)
    assert (module.train()(x) == 0).any() and torch.equal(module.eval()(x), x)


def test_other_devices_use_pytorchs_kernel():
    assert dropout(torch.ones(4, device="meta"), 0.5, True).device.type == "meta"
