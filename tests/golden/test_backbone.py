"""Backbones with golden weights: features, masks, and which parameters train."""

from functools import cache

import pytest
import torch
from numpy import ndarray

from models.backbone import Backbone
from tests.helpers.golden_rules import (
    ARRAYS,
    FACTS,
    FORWARD,
    assert_close,
    assert_same,
    covers,
    images,
    load_golden_weights,
)
from util.nested_tensor import nested_tensor_from_tensor_list

BACKBONES = {  # name, return_interm_layers, dilation
    "resnet18": ("resnet18", True, False),
    "resnet34": ("resnet34", False, False),
    "resnet50": ("resnet50", True, False),
    "resnet50_dc5": ("resnet50", False, True),
    "resnet101": ("resnet101", False, False),
}


@cache
def run_backbone(name: str) -> tuple[dict[str, dict[str, ndarray]], list[str]]:
    """Sliced features and masks of each level, and the names of the trainable parameters."""
    arch, interm, dilation = BACKBONES[name]
    backbone = load_golden_weights(Backbone(arch, True, interm, dilation)).eval()
    with torch.no_grad():
        levels = backbone(nested_tensor_from_tensor_list(images("bb", [(70, 101), (96, 64)])))
    results = {
        level: {"slice": x.tensors[:, :: max(1, x.tensors.shape[1] // 16)].numpy(), "mask": x.mask.numpy()}
        for level, x in levels.items()
    }
    return results, sorted(n for n, p in backbone.named_parameters() if p.requires_grad)


@covers("backbone/*/slice", "backbone/*/mask")
def test_backbone(key):
    _, name, level, part = key.split("/")
    levels, _ = run_backbone(name)
    compare = assert_same if part == "mask" else lambda *args: assert_close(*args[:2], FORWARD, args[2])
    compare(levels[level][part], ARRAYS[key], key)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_returns_only_the_golden_levels(name):
    golden = {key.split("/")[2] for key in ARRAYS if key.startswith(f"backbone/{name}/")}
    assert set(run_backbone(name)[0]) == golden


@covers("backbone_trainable/*")
def test_backbone_trains_the_golden_parameters(key):
    section, name = key.split("/")
    assert run_backbone(name)[1] == FACTS[section][name]
