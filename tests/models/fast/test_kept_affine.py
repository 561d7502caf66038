"""On a GPU a frozen norm keeps its two constants; whatever changes a buffer makes them anew."""

import copy
import pickle

import pytest
import torch
from torch import nn

from models import frozen_batch_norm
from models.frozen_batch_norm import FrozenBatchNorm2d


class KeepingNorm(FrozenBatchNorm2d):
    """Keeps its constants on a CPU as well."""

    @torch.jit.unused
    def _keeps_affine(self):
        return True


def as_on_gpu() -> FrozenBatchNorm2d:
    norm = KeepingNorm(3)
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 2)
    return norm


def plain(norm: FrozenBatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def load(norm):
    norm.load_state_dict({name: buffer + 1 for name, buffer in norm.state_dict().items()})


def replace(norm):
    norm.running_var = norm.running_var * 3


def write(norm):
    norm.weight.mul_(2)


CHANGES = [load, replace, write, lambda norm: norm.double().float(), lambda norm: norm.bias.fill_(7)]


@pytest.mark.parametrize("change", CHANGES, ids=["load", "replace", "write", "convert", "fill"])
def test_every_change_of_a_buffer_is_seen(change):
    norm, x = as_on_gpu(), torch.randn(2, 3, 4, 5)
    norm(x)
    change(norm)
    torch.testing.assert_close(norm(x), plain(norm, x))


def test_what_a_recorded_graph_computes_is_not_kept(monkeypatch):
    norm = as_on_gpu()
    monkeypatch.setattr(frozen_batch_norm, "in_recording", lambda tensor: True)
    norm.affine(torch.float32)
    assert norm._kept is None


def test_the_constants_are_kept_between_calls():
    norm = as_on_gpu()
    assert norm.affine(torch.float32)[0] is norm.affine(torch.float32)[0]
    assert norm.affine(torch.float64)[0].dtype == torch.float64


def test_constants_made_in_inference_mode_serve_training():
    norm = as_on_gpu()
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    with torch.inference_mode():
        norm(x.detach())
    norm(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda norm: pickle.loads(pickle.dumps(norm))])
def test_a_copy_has_constants_of_its_own(duplicate):
    norm, x = as_on_gpu(), torch.randn(2, 3, 4, 5)
    norm(x)
    other = duplicate(norm)
    other.weight.mul_(2)
    torch.testing.assert_close(other(x), plain(other, x))
    torch.testing.assert_close(norm(x), plain(norm, x))


def test_on_a_cpu_nothing_is_kept():
    norm = FrozenBatchNorm2d(3)
    assert norm.affine(torch.float32)[0] is not norm.affine(torch.float32)[0]
