"""Our ResNets: equal to torchvision's with the same weights; dilation and sizes that torchvision does not support."""

import math

import pytest
import torch
import torchvision
from torch import Tensor, nn

from models.resnet import SPECS, ResNet, build_resnet

DEPTHS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
STAGES = ["layer1", "layer2", "layer3", "layer4"]


def randomise(network: nn.Module, seed: int = 0) -> None:
    """Fill a network so that every parameter and every statistic of its norms affects the output."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.ndim > 1:
            value.normal_(0, 1 / math.sqrt(value[0].numel()), generator=generator)
        elif name.endswith(("running_var", "weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point():
            value.normal_(0, 0.2, generator=generator)
        else:
            value.zero_()


def torchvision_model(name: str, dilation: bool = False) -> nn.Module:
    options = {"replace_stride_with_dilation": [False, False, True]} if dilation else {}
    with torch.device("meta"):  # skips the initialisation, which is overwritten anyway
        model = getattr(torchvision.models, name)(weights=None, **options)
    model.to_empty(device="cpu")
    randomise(model)
    return model.eval()


def trunk_state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}


@torch.no_grad()
def outputs_of_stages(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The outputs of layer1 to layer4 during a forward pass of the model."""
    seen: dict[str, Tensor] = {}
    for stage in STAGES:
        getattr(model, stage).register_forward_hook(
            lambda module, inputs, output, stage=stage: seen.__setitem__(stage, output.clone())
        )
    model(x)
    return seen


@pytest.mark.parametrize(
    ("name", "dilation"), [(name, False) for name in DEPTHS] + [(name, True) for name in DEPTHS[2:]]
)
def test_every_stage_equals_torchvisions(name, dilation):
    theirs = torchvision_model(name, dilation)
    with torch.device("meta"):
        ours = build_resnet(name, norm_layer=nn.BatchNorm2d, dilation=dilation).eval()
    ours.load_state_dict(trunk_state(theirs), strict=True, assign=True)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected, got = outputs_of_stages(theirs, x), outputs_of_stages(ours, x)
    for index, stage in enumerate(STAGES):
        scale = expected[stage].abs().max().item()
        torch.testing.assert_close(got[stage], expected[stage], rtol=1e-4, atol=1e-5 * scale)
        assert got[stage].shape[1] == ours.channels[index]
        assert got[stage].shape[2] == 64 // ours.strides[index]
    assert torch.equal(ours(x), got["layer4"])


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_training_mode_gives_torchvisions_gradients(name):
    theirs = torchvision_model(name).train()
    ours = build_resnet(name, norm_layer=nn.BatchNorm2d).train()
    ours.load_state_dict(trunk_state(theirs))
    theirs.avgpool, theirs.fc = nn.Identity(), nn.Identity()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    theirs(x).square().mean().backward()
    ours(x).square().mean().backward()
    expected = theirs.conv1.weight.grad
    torch.testing.assert_close(ours.conv1.weight.grad, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_basic_blocks_dilate_by_the_same_rule(name):
    dilated = build_resnet(name, norm_layer=nn.BatchNorm2d, dilation=True)
    theirs = torchvision_model(name)
    assert {k: v.shape for k, v in dilated.state_dict().items()} == {k: v.shape for k, v in trunk_state(theirs).items()}
    assert dilated(torch.zeros(1, 3, 64, 96)).shape == (1, 512, 4, 6)
    assert dilated.strides == (4, 8, 16, 16)
    first, *rest = dilated.layer4
    assert (first.conv1.dilation, first.conv2.dilation, first.conv1.stride) == ((1, 1), (1, 1), (1, 1))
    assert first.downsample[0].stride == (1, 1)
    assert rest and all(conv.dilation == (2, 2) for block in rest for conv in (block.conv1, block.conv2))
    assert all(conv.dilation == (1, 1) for conv in dilated.layer3.modules() if isinstance(conv, nn.Conv2d))


@pytest.mark.parametrize(("dilation", "strides"), [(False, (4, 8, 16, 32)), (True, (4, 8, 16, 16))])
def test_tiny_is_small_and_has_the_four_stages(dilation, strides):
    tiny = build_resnet("tiny", norm_layer=nn.BatchNorm2d, dilation=dilation)
    assert sum(parameter.numel() for parameter in tiny.parameters()) <= 1_500_000
    assert tiny.strides == strides
    seen = outputs_of_stages(tiny, torch.zeros(1, 3, 96, 64))
    for stage, channels, stride in zip(STAGES, tiny.channels, strides):
        assert seen[stage].shape == (1, channels, 96 // stride, 64 // stride)


def test_channels_of_the_published_depths():
    for name in DEPTHS:
        expected = (64, 128, 256, 512) if name in ("resnet18", "resnet34") else (256, 512, 1024, 2048)
        with torch.device("meta"):
            assert build_resnet(name, norm_layer=nn.Identity).channels == expected


def test_odd_sizes_round_up():
    tiny = build_resnet("tiny", norm_layer=nn.BatchNorm2d)
    assert tiny(torch.zeros(1, 3, 65, 97)).shape[-2:] == (3, 4)


def test_initialisation_equals_torchvisions():
    torch.manual_seed(0)
    network = build_resnet("resnet50", norm_layer=nn.BatchNorm2d)
    for conv in (network.conv1, network.layer2[0].conv2, network.layer3[0].downsample[0], network.layer4[2].conv3):
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        assert abs(conv.weight.mean().item()) < 0.05 * math.sqrt(2 / fan_out)
        assert conv.weight.abs().max() > 3.0 * math.sqrt(2 / fan_out)  # normal, not uniform
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 53
    assert all(bool((norm.weight == 1).all() and (norm.bias == 0).all()) for norm in norms)


def test_the_caller_chooses_the_norm():
    widths: list[int] = []

    def norm_layer(channels: int) -> nn.Module:
        widths.append(channels)
        return nn.GroupNorm(8, channels)

    network = build_resnet("resnet18", norm_layer=norm_layer)
    assert len(widths) == 20 and set(widths) == {64, 128, 256, 512}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_a_network_can_be_built_from_its_spec():
    torch.manual_seed(3)
    one = build_resnet("tiny", norm_layer=nn.BatchNorm2d)
    torch.manual_seed(3)
    other = ResNet(SPECS["tiny"], norm_layer=nn.BatchNorm2d)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


def test_unknown_name_lists_the_choices():
    with pytest.raises(ValueError, match=r"resnet9000.*resnet18, resnet34, resnet50, resnet101, resnet152, tiny"):
        build_resnet("resnet9000", norm_layer=nn.BatchNorm2d)
