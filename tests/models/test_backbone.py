"""Frozen batch norm, other norms, frozen layers, levels and their masks."""

import warnings

import pytest
import torch
import torchvision
from torch import nn

from models.backbone import NORM_LAYERS, Backbone, BackboneBase, FrozenBatchNorm2d, Joiner, group_norm
from models.position_encoding import PositionEmbeddingSine
from models.resnet import build_resnet
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list

STEM = {"conv1", "bn1"}


def random_frozen_norm(channels: int) -> FrozenBatchNorm2d:
    norm = FrozenBatchNorm2d(channels)
    generator = torch.Generator().manual_seed(0)
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 1.5, generator=generator)
    return norm


def two_images() -> NestedTensor:
    torch.manual_seed(0)
    return nested_tensor_from_tensor_list([torch.randn(3, 40, 64), torch.randn(3, 64, 33)])


# --- frozen batch norm ---


def test_frozen_norm_equals_batch_norm_at_evaluation():
    frozen, live = random_frozen_norm(6), nn.BatchNorm2d(6)
    live.load_state_dict(frozen.state_dict(), strict=False)
    x = torch.randn(2, 6, 5, 4)
    torch.testing.assert_close(frozen(x), live.eval()(x))


def test_frozen_norm_has_eps_inside_the_root():
    frozen = FrozenBatchNorm2d(1)
    frozen.running_var.fill_(1e-5)
    assert frozen(torch.ones(1, 1, 1, 1)).item() == pytest.approx((2e-5) ** -0.5, rel=1e-5)


def test_frozen_norm_is_the_same_in_training_and_never_changes():
    frozen = random_frozen_norm(6)
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    x = torch.randn(4, 6, 5, 4) * 3 + 7
    assert torch.equal(frozen.train()(x), frozen.eval()(x))
    assert all(torch.equal(before[key], value) for key, value in frozen.state_dict().items())


def test_frozen_norm_holds_only_buffers():
    frozen = FrozenBatchNorm2d(3)
    assert list(frozen.parameters()) == []
    assert set(frozen.state_dict()) == {"weight", "bias", "running_mean", "running_var"}


def test_frozen_norm_drops_the_batch_counter():
    state = nn.BatchNorm2d(3).state_dict()
    assert "num_batches_tracked" in state
    FrozenBatchNorm2d(3).load_state_dict(state, strict=True)


def test_frozen_norm_lets_gradients_through():
    x = torch.randn(2, 6, 3, 3, requires_grad=True)
    frozen = random_frozen_norm(6)
    frozen(x).sum().backward()
    scale = frozen.weight / (frozen.running_var + 1e-5).sqrt()
    torch.testing.assert_close(x.grad, scale.view(1, 6, 1, 1).expand_as(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("half_buffers", [False, True])
def test_frozen_norm_rounds_half_types_once(dtype, half_buffers):
    frozen = random_frozen_norm(6)
    if half_buffers:
        frozen.to(dtype)
    exact = random_frozen_norm(6)
    exact.load_state_dict({key: value.float() for key, value in frozen.state_dict().items()})
    x = torch.randn(2, 6, 5, 4).to(dtype)
    assert frozen(x).dtype == dtype
    assert torch.equal(frozen(x), exact(x.float()).to(dtype))


def test_frozen_norm_never_lowers_float64():
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    frozen = random_frozen_norm(6)
    assert frozen(x).dtype == torch.float64
    live = nn.BatchNorm2d(6).double()
    live.load_state_dict(frozen.state_dict(), strict=False)
    torch.testing.assert_close(frozen(x), live.eval()(x), rtol=1e-13, atol=1e-13)


# --- other norms ---


def test_the_number_of_groups_divides_the_channels():
    for channels in range(1, 300):
        norm = group_norm(channels)
        assert channels % norm.num_groups == 0 and norm.num_groups <= 32
    assert [group_norm(channels).num_groups for channels in (32, 64, 128, 256, 2048)] == [8, 16, 32, 32, 32]


@pytest.mark.parametrize(
    ("norm", "kind"), [("frozen_bn", FrozenBatchNorm2d), ("bn", nn.BatchNorm2d), ("gn", nn.GroupNorm)]
)
@pytest.mark.parametrize("name", ["tiny", "resnet18", "resnet50"])
def test_norm_is_chosen_by_name(name, norm, kind):
    backbone = Backbone(name, True, False, False, norm=norm)
    norms = [m for m in backbone.modules() if isinstance(m, (FrozenBatchNorm2d, nn.BatchNorm2d, nn.GroupNorm))]
    assert norms and all(type(module) is kind for module in norms)
    if name != "resnet50":
        assert backbone(two_images())["0"].tensors.isfinite().all()


def test_unknown_norm_lists_the_choices():
    with pytest.raises(ValueError, match="layer_norm.*frozen_bn, bn, gn"):
        Backbone("tiny", True, False, False, norm="layer_norm")


# --- frozen layers ---


@pytest.mark.parametrize("norm", list(NORM_LAYERS))
@pytest.mark.parametrize(
    ("trainable_layers", "expected"),
    [
        (0, set()),
        (1, {"layer4"}),
        (2, {"layer4", "layer3"}),
        (3, {"layer4", "layer3", "layer2"}),
        (4, {"layer4", "layer3", "layer2", "layer1"}),
        (5, {"layer4", "layer3", "layer2", "layer1"} | STEM),
    ],
)
def test_trainable_layers_count_from_the_end(norm, trainable_layers, expected):
    backbone = Backbone("tiny", True, False, False, trainable_layers=trainable_layers, norm=norm)
    trains = {name: parameter.requires_grad for name, parameter in backbone.named_parameters()}
    assert trains == {name: name.split(".")[1] in expected for name in trains}


def test_stem_and_first_stage_are_frozen_by_default():
    backbone = Backbone("resnet18", True, False, False)
    frozen = {n.split(".")[1] for n, p in backbone.named_parameters() if not p.requires_grad}
    trained = {n.split(".")[1] for n, p in backbone.named_parameters() if p.requires_grad}
    assert frozen == {"conv1", "layer1"} and trained == {"layer2", "layer3", "layer4"}


@pytest.mark.parametrize("trainable_layers", [3, 5])
def test_train_backbone_false_freezes_all(trainable_layers):
    backbone = Backbone("tiny", False, False, False, trainable_layers=trainable_layers, norm="bn")
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("trainable_layers", [-1, 6])
def test_trainable_layers_outside_0_to_5_is_an_error(trainable_layers):
    with pytest.raises(ValueError, match=rf"trainable_layers must be in 0\.\.5, got {trainable_layers}"):
        Backbone("tiny", True, False, False, trainable_layers=trainable_layers)


# --- levels, masks, sizes ---


@pytest.mark.parametrize("dilation", [False, True])
@pytest.mark.parametrize("interm", [False, True])
def test_levels_have_the_stated_channels_and_strides(interm, dilation):
    backbone = Backbone("tiny", True, interm, dilation)
    outputs = backbone(two_images())
    assert list(outputs) == (["0", "1", "2", "3"] if interm else ["0"])
    assert len(backbone.channels) == len(backbone.strides) == len(outputs)
    for feature, channels, stride in zip(outputs.values(), backbone.channels, backbone.strides):
        assert feature.tensors.shape == (2, channels, 64 // stride, 64 // stride)
        assert feature.mask.shape == (2, 64 // stride, 64 // stride)
    assert backbone.num_channels == feature.tensors.shape[1]
    assert backbone.strides[-1] == (16 if dilation else 32)


def test_mask_is_resized_by_nearest():
    images = two_images()  # the second is 33 wide: half of the batch's width and one pixel of the next cell
    masks = [feature.mask for feature in Backbone("tiny", True, True, False)(images).values()]
    for mask, stride in zip(masks, (4, 8, 16, 32)):
        assert mask.dtype == torch.bool
        assert torch.equal(mask, images.mask[:, ::stride, ::stride])


def test_keys_are_torchvisions_with_the_prefix_body():
    with torch.device("meta"):
        ours = Backbone("resnet50", True, False, False, norm="bn").state_dict()
        theirs = torchvision.models.resnet50(weights=None).state_dict()
    assert set(ours) == {f"body.{key}" for key in theirs if not key.startswith("fc.")}


def test_backbone_base_takes_a_torchvision_network():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(weights=None, norm_layer=FrozenBatchNorm2d)
    ours = build_resnet("resnet18", norm_layer=FrozenBatchNorm2d)
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    images = two_images()
    expected = BackboneBase(theirs, True, 512, True)(images)
    got = BackboneBase(ours, True, 512, True)(images)
    assert expected.keys() == got.keys()
    for level in got:
        scale = float(expected[level].tensors.detach().abs().max())
        torch.testing.assert_close(got[level].tensors, expected[level].tensors, rtol=0, atol=1e-5 * scale)


def test_backbone_base_names_a_missing_stage():
    with pytest.raises(ValueError, match="no layer4: its children are 0"):
        BackboneBase(nn.Sequential(nn.Conv2d(3, 4, 1)), True, 4, False)


def test_body_compiles_to_torchscript():
    body = Backbone("tiny", True, True, False).eval().body
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript's deprecation
        scripted = torch.jit.script(body)
    x = two_images().tensors
    expected, got = body(x), scripted(x)
    assert list(got) == list(expected)
    assert all(torch.equal(got[level], expected[level]) for level in expected)


def test_joiner_returns_an_encoding_of_each_level_in_its_type():
    joiner = Joiner(Backbone("tiny", True, True, False), PositionEmbeddingSine(8, normalize=True)).double()
    images = two_images()
    features, positions = joiner(NestedTensor(images.tensors.double(), images.mask))
    assert len(features) == len(positions) == 4
    for feature, position in zip(features, positions):
        assert position.shape == (2, 16, *feature.tensors.shape[-2:])
        assert position.dtype == feature.tensors.dtype == torch.float64
