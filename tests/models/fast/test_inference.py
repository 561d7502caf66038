"""The copy for inference predicts what the model predicts."""

import copy

import pytest
import torch
from torch import nn

from models.backbone import Backbone
from models.fast import inference
from models.fast.inference import FusedResNet, optimize_for_inference
from tests.models.fast.test_folded_norm import assert_equal, backbone, batch


def features(network: Backbone, size: tuple[int, int] = (37, 50), dtype: torch.dtype = torch.float32) -> dict:
    with torch.no_grad():
        return {level: feature.tensors.clone() for level, feature in network(batch(dtype, size)).items()}


def with_statistics(network: Backbone) -> Backbone:
    """Batch norms whose running statistics are not the initial ones."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
    return network.eval()


@pytest.mark.parametrize("norm", ["frozen_bn", "bn"])
@pytest.mark.parametrize(("name", "dilation"), [("tiny", True), ("resnet18", False), ("resnet50", False)])
def test_all_levels_equal_the_models(name, dilation, norm):
    network = with_statistics(backbone(name, dilation, torch.float32, norm=norm))
    expected = features(network)
    fast = optimize_for_inference(network)
    assert isinstance(fast.body, FusedResNet)
    assert_equal(features(fast), expected, 1e-5)
    assert_equal(features(fast), expected, 1e-5)  # the first call has not overwritten what it returns or needs


def test_images_of_changing_sizes_equal_the_models(monkeypatch):
    monkeypatch.setattr(inference, "PACKED_SIZES", 2)
    network = backbone("resnet18", dtype=torch.float32)
    fast = optimize_for_inference(network)
    for size in [(33, 40), (64, 48), (40, 33), (33, 40), (64, 48)]:
        assert_equal(features(fast, size), features(network, size), 1e-5)
    assert all(len(conv.packed) <= 2 for conv in fast.modules() if isinstance(conv, inference.FusedConv))


def test_the_form_without_onednn_equals_the_model(monkeypatch):
    monkeypatch.setattr(inference, "has_onednn", lambda x: False)
    network = backbone("resnet50", dtype=torch.float64)
    assert_equal(
        features(optimize_for_inference(network), dtype=torch.float64), features(network, dtype=torch.float64), 1e-12
    )


def test_the_model_itself_does_not_change():
    network = backbone("tiny", dtype=torch.float32).train()
    before = copy.deepcopy(network.state_dict())
    optimize_for_inference(network)
    assert network.training and any(p.requires_grad for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("change", ["gn", "activation", "other network"])
def test_what_is_not_ours_stays_as_it_is(change):
    network = backbone("tiny", dtype=torch.float32, norm="gn" if change == "gn" else "frozen_bn").eval()
    if change == "activation":
        network.body["layer2"][0].relu = nn.GELU()
    if change == "other network":
        network.body = nn.Conv2d(3, 4, 1)
        assert type(optimize_for_inference(network).body) is nn.Conv2d
        return
    fast = optimize_for_inference(network)
    assert not isinstance(fast.body, FusedResNet)
    assert_equal(features(fast), features(network), 0.0)
