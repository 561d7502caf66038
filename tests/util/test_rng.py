"""The global random number generators."""

import random

import numpy as np
import pytest
import torch

from util.checkpoint import load_checkpoint, save_checkpoint
from util.rng import get_rng_state, preserve_rng_state, seed_everything, set_rng_state


def draw() -> tuple[float, float, float]:
    """One number from each generator."""
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_a_seed_sets_all_generators():
    seed_everything(7)
    first = draw()
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert not set(draw()) & set(first)


def test_the_state_survives_a_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "rng.pth", {"rng": [get_rng_state()]})
    drawn = draw()
    set_rng_state(load_checkpoint(tmp_path / "rng.pth")["rng"][0])
    assert draw() == drawn


@pytest.mark.parametrize("fails", [False, True])
def test_the_state_is_restored_after_a_block(fails):
    seed_everything(3)
    expected = draw()
    seed_everything(3)
    try:
        with preserve_rng_state():
            seed_everything(11)
            draw()
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert draw() == expected


def test_only_the_named_cuda_devices_are_read_and_restored(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: calls.append(("get", device)) or f"state {device}")
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: calls.append(("set", device, state)))
    with preserve_rng_state():
        pass
    assert calls == []
    with preserve_rng_state([torch.device("cuda", 1)]):
        assert calls.pop() == ("get", torch.device("cuda", 1))
    assert calls == [("set", torch.device("cuda", 1), "state cuda:1")]
