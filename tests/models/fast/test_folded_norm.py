"""The backbone with frozen norms folded into convolutions against its plain form."""

import pytest
import torch
from torch import Tensor, nn

from models.backbone import Backbone, FrozenBatchNorm2d
from models.fast.conv_norm import weight_gradient
from models.fast.inference import FusedResNet, optimize_for_inference
from models.resnet import Bottleneck
from util.nested_tensor import NestedTensor

BACKBONES = [("tiny", False), ("tiny", True), ("resnet18", True), ("resnet50", False), ("resnet50", True)]


def backbone(name: str = "tiny", dilation: bool = False, dtype: torch.dtype = torch.float64, **options) -> Backbone:
    """With norms that change scale and mean of every channel."""
    torch.manual_seed(0)
    network = Backbone(name, True, True, dilation, **options).to(dtype)
    for norm in network.modules():
        if isinstance(norm, FrozenBatchNorm2d):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return network


def batch(dtype: torch.dtype = torch.float64, size: tuple[int, int] = (37, 50)) -> NestedTensor:
    images = torch.randn(2, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return NestedTensor(images, torch.zeros(2, *size, dtype=torch.bool))


def run_folded(network: Backbone, wanted: bool) -> None:
    for module in network.modules():
        if hasattr(module, "fast"):
            module.fast = wanted


def folds(network: Backbone) -> list[bool]:
    """Of the stem and each block."""
    return [module.folds for module in network.modules() if hasattr(module, "folds")]


def results(network: Backbone, folded: bool, samples: NestedTensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Features and gradients of the weights, by name; the image's gradient too if it asks for one."""
    run_folded(network, folded)
    network.zero_grad()
    features = {level: feature.tensors for level, feature in network(samples).items()}
    weights = [torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x) for x in features.values()]
    sum((x * w).mean() for x, w in zip(features.values(), weights)).backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    if samples.tensors.requires_grad:
        gradients["image"], samples.tensors.grad = samples.tensors.grad, None
    return {level: x.detach() for level, x in features.items()}, gradients


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        scale = float(other[name].abs().max())
        assert float((one[name] - other[name]).abs().max()) <= tolerance * scale, name


@pytest.mark.parametrize(("name", "dilation"), BACKBONES)
def test_features_and_gradients_equal_the_plain_form(name, dilation):
    network = backbone(name, dilation)
    folded, plain = (results(network, way, batch()) for way in (True, False))
    assert_equal(folded[0], plain[0], 1e-12)
    assert_equal(folded[1], plain[1], 1e-12)


def test_features_equal_the_plain_form_in_float32():
    network = backbone("resnet50", dtype=torch.float32)
    folded, plain = (results(network, way, batch(torch.float32))[0] for way in (True, False))
    assert_equal(folded, plain, 1e-5)


@pytest.mark.parametrize("trainable_layers", [0, 5])
def test_the_gradient_of_the_image_equals_the_plain_forms(trainable_layers):
    network = backbone(trainable_layers=trainable_layers)
    samples = batch()
    samples.tensors.requires_grad_()
    folded, plain = (results(network, way, samples)[1] for way in (True, False))
    assert "image" in folded
    assert_equal(folded, plain, 1e-12)


def test_the_gradient_that_reaches_the_features_is_kept():
    """The fast form overwrites gradients inside a block only."""
    network = backbone(trainable_layers=5)
    features = [feature.tensors for feature in network(batch()).values()]
    given = [torch.randn_like(x) for x in features]
    copies = [x.clone() for x in given]
    torch.autograd.backward(features, given)
    assert all(torch.equal(x, y) for x, y in zip(given, copies))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(1, 1, 0, 1), (1, 2, 0, 1), (3, 1, 1, 1), (3, 1, 2, 2), (3, 2, 1, 1), (5, 1, 2, 1), (7, 2, 3, 1), (3, 1, 0, 1)],
)
def test_the_gradient_of_a_weight_equals_pytorchs(kernel, stride, padding, dilation):
    conv = nn.Conv2d(5, 6, kernel, stride, padding, dilation, bias=False).double()
    x = torch.randn(3, 5, 11, 14, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    out = conv(x)
    grad = torch.randn_like(out)
    out.backward(grad)
    geometry = (conv.stride, conv.padding, conv.dilation)
    torch.testing.assert_close(weight_gradient(grad, x, conv.weight, geometry), conv.weight.grad, rtol=0, atol=1e-11)


def test_it_is_the_form_that_runs_and_a_hook_brings_the_plain_one_back():
    network, calls = backbone(), []
    assert folds(network) == [True] * 5  # the stem and a block in each stage
    hook = network.body["layer2"][0].bn1.register_forward_hook(lambda *_: calls.append(1))
    assert folds(network) == [True, True, False, True, True]
    network(batch())
    assert calls == [1]
    hook.remove()
    assert all(folds(network))
    hook = network.body["bn1"].register_forward_hook(lambda *_: calls.append(2))
    network(batch())
    assert calls == [1, 2] and not folds(network)[0]


@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_norms_that_learn_are_not_folded(norm):
    assert not any(folds(backbone(norm=norm)))


def test_a_block_with_a_replaced_part_is_not_folded():
    network = backbone()
    network.body["layer3"][0].relu = nn.GELU()
    assert folds(network) == [True, True, True, False, True]


@pytest.mark.parametrize("change", [{"bias": True}, {"groups": 4}, {"padding_mode": "reflect"}, {"padding": "same"}])
def test_convolutions_that_are_not_plain_are_not_folded(change):
    """Neither for training nor for inference: the sum with the shift of the norm has no place for a bias."""
    network = backbone()
    network.body["layer1"][0].conv2 = nn.Conv2d(32, 32, 3, **({"padding": 1, "bias": False} | change)).double()
    assert folds(network) == [True, False, True, True, True]
    fast = optimize_for_inference(network)
    assert not isinstance(fast.body, FusedResNet)
    plain, fast = network(batch())["3"].tensors, fast(batch())["3"].tensors
    assert_equal({"3": fast}, {"3": plain.detach()}, 1e-12)


def test_a_stem_with_a_bias_is_not_folded():
    network = backbone()
    network.body["conv1"] = nn.Conv2d(3, 32, 7, 2, 3).double()
    assert folds(network)[0] is False


def test_autocast_gives_half_features_near_the_float32_ones():
    network = backbone(dtype=torch.float32).requires_grad_(True)
    samples = batch(torch.float32)
    exact = network(samples)["3"].tensors
    with torch.autocast("cpu", torch.bfloat16):
        half = network(samples)["3"].tensors
    half.float().sum().backward()
    assert half.dtype == torch.bfloat16
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in network.parameters())


def test_a_file_for_another_runtime_holds_convolutions():
    """Their kernels for these are faster than products of matrices between transpositions."""
    block = Bottleneck(64, 16, stride=1, dilation=1, norm_layer=FrozenBatchNorm2d).eval()
    program = torch.export.export(block, (torch.zeros(1, 64, 8, 8),))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("conv" in name for name in called) == 3
    assert not any("mm" in name for name in called)
