"""The convolutional trunk of DETR (paper, section 3.2): which of its features go on, which of its layers learn.

Shapes: B batch, C channels, H and W of the padded image, h and w of a feature map.
"""

from __future__ import annotations

import argparse
import math
import pickle
import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.position_encoding import build_position_encoding
from models.resnet import SPECS, NormLayer, build_resnet
from util.checkpoint import CheckpointError, load_checkpoint, load_weights
from util.dist import is_main_process
from util.nested_tensor import NestedTensor

IMAGENET_URL = "https://download.pytorch.org/models/"
# torchvision's IMAGENET1K_V1, with which DETR was trained; its later weights give other features
IMAGENET_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}

# In the order in which `trainable_layers` thaws them, torchvision's
THAW_ORDER = (("layer4",), ("layer3",), ("layer2",), ("layer1",), ("conv1", "bn1"))


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters are constants, in training too.

    All four are buffers, so neither optimizer nor weight decay nor a training batch changes them. Detection batches
    of 2 to 4 images are too small for batch statistics.
    """

    def __init__(self, n: int):
        super().__init__()
        self.eps = 1e-5
        self.register_buffer("weight", torch.ones(n))
        self.register_buffer("bias", torch.zeros(n))
        self.register_buffer("running_mean", torch.zeros(n))
        self.register_buffer("running_var", torch.ones(n))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)  # a live batch norm's counter; nothing is counted here
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape and type; half types are computed in float32."""
        wide = torch.promote_types(torch.promote_types(x.dtype, self.weight.dtype), torch.float32)
        scale = self.weight.to(wide) * (self.running_var.to(wide) + self.eps).rsqrt()  # [C]
        shift = self.bias.to(wide) - self.running_mean.to(wide) * scale  # [C]
        # one pass over memory, and autograd keeps no copy of x
        return torch.addcmul(shift.view(1, -1, 1, 1), x.to(wide), scale.view(1, -1, 1, 1)).to(x.dtype)


def group_norm(n: int) -> nn.GroupNorm:
    """Group norm (Wu and He, 2018) of at most 32 groups that divide `n`, of four channels or more where they can be."""
    return nn.GroupNorm(math.gcd(n, max(1, min(32, n // 4))), n)


NORM_LAYERS: dict[str, NormLayer] = {"frozen_bn": FrozenBatchNorm2d, "bn": nn.BatchNorm2d, "gn": group_norm}


class IntermediateLayers(nn.ModuleDict):
    """The children of a network, run one after the other; the outputs of some of them are kept.

    Args:
        network: a module whose forward is nothing but its children in their order, as far as the last kept one.
        return_layers: child's name -> the key of its output.
    """

    def __init__(self, network: nn.Module, return_layers: dict[str, str]):
        children = dict(network.named_children())
        names = list(children)
        missing = [name for name in return_layers if name not in children]
        if missing:
            raise ValueError(f"the backbone has no {', '.join(missing)}: its children are {', '.join(names)}")
        last = max(names.index(name) for name in return_layers)
        super().__init__({name: children[name] for name in names[: last + 1]})
        self.return_layers = dict(return_layers)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W] -> {key: [B, C, h, w]}, from fine to coarse."""
        outputs: dict[str, Tensor] = {}
        for name, layer in self.items():
            x = layer(x)
            if name in self.return_layers:
                outputs[self.return_layers[name]] = x
        return outputs


class BackboneBase(nn.Module):
    """A trunk with its freezing rule; features come out with their padding masks.

    Args:
        backbone: a network of the children conv1, bn1, relu, maxpool, layer1 to layer4, run in that order (what else
            it has behind them is left out): `models.resnet.ResNet`, or torchvision's.
        train_backbone: False freezes every parameter.
        num_channels: channels of the last stage.
        return_interm_layers: all four stages as "0" to "3", else the last one alone as "0".
        trainable_layers: how many parts learn when `train_backbone`, counted from the end: 3 (published) are layer4
            to layer2, 4 adds layer1, 5 the stem.

    Raises:
        ValueError: `trainable_layers` outside 0 to 5, or a network without the stages.
    """

    def __init__(
        self,
        backbone: nn.Module,
        train_backbone: bool,
        num_channels: int,
        return_interm_layers: bool,
        *,
        trainable_layers: int = 3,
    ):
        super().__init__()
        if trainable_layers not in range(len(THAW_ORDER) + 1):
            raise ValueError(
                f"trainable_layers is {trainable_layers}, but a backbone has 5 parts: pass --trainable_layers 0 to 5"
            )
        thawed = {name for part in THAW_ORDER[:trainable_layers] for name in part}
        for name, parameter in backbone.named_parameters():
            if not train_backbone or name.split(".")[0] not in thawed:
                parameter.requires_grad_(False)
        if return_interm_layers:
            return_layers = {"layer1": "0", "layer2": "1", "layer3": "2", "layer4": "3"}
        else:
            return_layers = {"layer4": "0"}
        self.body = IntermediateLayers(backbone, return_layers)
        self.num_channels = num_channels

    def forward(self, tensor_list: NestedTensor) -> dict[str, NestedTensor]:
        """Images [B, 3, H, W], mask [B, H, W] -> {level: features [B, C, h, w], mask [B, h, w], True = padding}."""
        features = self.body(tensor_list.tensors)
        mask = tensor_list.mask
        assert mask is not None
        outputs: dict[str, NestedTensor] = {}
        for level, feature in features.items():
            resized = F.interpolate(mask[None].float(), size=feature.shape[-2:])[0].to(torch.bool)  # [B, h, w]
            outputs[level] = NestedTensor(feature, resized)
        return outputs


class Backbone(BackboneBase):
    """A ResNet by name.

    Args:
        name: one of `models.resnet.SPECS`.
        train_backbone, return_interm_layers, trainable_layers: see `BackboneBase`.
        dilation: the last stage at stride 16 in place of 32 (DC5; paper, section 4).
        norm: "frozen_bn" (published), "bn" or "gn".
        weights: None or "none" for random ones, "imagenet" (downloaded once, into torch.hub's cache), or a path to
            a state_dict in torchvision's format. Read on the main process only: DDP hands them to the others.

    Attributes:
        num_channels: channels of the last level.
        channels, strides: of all returned levels, from fine to coarse.

    Raises:
        ValueError: an unknown name or norm; `trainable_layers` outside 0 to 5; ImageNet weights that do not exist.
        FileNotFoundError: no file at `weights`.
        CheckpointError: the ImageNet weights cannot be had; a file cannot be read, or does not fit the network.
    """

    def __init__(
        self,
        name: str,
        train_backbone: bool,
        return_interm_layers: bool,
        dilation: bool,
        *,
        trainable_layers: int = 3,
        norm: str = "frozen_bn",
        weights: str | None = None,
    ):
        check_backbone(name, norm, weights)  # on every rank: none must wait for a main process that gave up
        resnet = build_resnet(name, norm_layer=NORM_LAYERS[norm], dilation=dilation)
        if weights not in (None, "none") and is_main_process():
            state = _imagenet_state(name) if weights == "imagenet" else load_checkpoint(weights)
            source = IMAGENET_FILES[name] if weights == "imagenet" else weights
            trunk = {key: value for key, value in state.items() if not key.startswith("fc.")}  # no classifier here
            load_weights(resnet, trunk, source)
        super().__init__(
            resnet, train_backbone, resnet.channels[-1], return_interm_layers, trainable_layers=trainable_layers
        )
        self.channels = resnet.channels if return_interm_layers else resnet.channels[-1:]
        self.strides = resnet.strides if return_interm_layers else resnet.strides[-1:]


def check_backbone(name: str, norm: str, weights: str | None) -> None:
    """Refuse a backbone that cannot be built, before anything is; arguments as in `Backbone`.

    Raises:
        ValueError: an unknown name or norm, or ImageNet weights that do not exist for it.
        FileNotFoundError: no file at `weights`.
    """
    if name not in SPECS:
        raise ValueError(f"unknown backbone {name!r}: choose one of {', '.join(SPECS)}")
    if norm not in NORM_LAYERS:
        raise ValueError(f"unknown backbone norm {norm!r}: choose one of {', '.join(NORM_LAYERS)}")
    if weights == "imagenet" and name not in IMAGENET_FILES:
        raise ValueError(
            f"there are no ImageNet weights for the backbone {name}: pass --backbone_weights none, or one of "
            f"--backbone {', '.join(IMAGENET_FILES)}"
        )
    if weights == "imagenet" and norm == "gn":
        raise ValueError(
            "the ImageNet weights were trained with batch norm and do not fit --backbone_norm gn: pass "
            "--backbone_weights none, or --backbone_norm frozen_bn or bn"
        )
    # The main process reads the file, so that is where it must be.
    if weights not in (None, "none", "imagenet") and is_main_process() and not Path(weights).is_file():
        raise FileNotFoundError(
            f"there are no backbone weights at {weights}: pass --backbone_weights imagenet, none, or the path of a "
            "state_dict in torchvision's format"
        )


def _imagenet_state(name: str) -> dict[str, Tensor]:
    """torchvision's file from torch.hub's cache, downloaded and checked by its hash if it is not there."""
    filename = IMAGENET_FILES[name]
    url = IMAGENET_URL + filename
    cached = Path(torch.hub.get_dir()) / "checkpoints" / filename
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True, progress=sys.stderr.isatty()
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        if cached.exists():
            remedy = f"{cached} is damaged: delete it to have it downloaded anew"
        else:
            remedy = f"put the file {filename} into the folder {cached.parent}"
        raise CheckpointError(
            f"cannot load the ImageNet weights {url} ({error}): {remedy}, or start without them by "
            "--backbone_weights none"
        ) from error


class Joiner(nn.Sequential):
    """Backbone and position encoding: `[0]` and `[1]`.

    Args:
        backbone: a `Backbone` or another module whose forward returns {level: NestedTensor}, finest level first.
        position_embedding: a module that returns the encoding of a NestedTensor.

    Attributes:
        num_channels: the backbone's. A backbone without that attribute leaves it to the caller to set.
    """

    def __init__(self, backbone: nn.Module, position_embedding: nn.Module):
        super().__init__(backbone, position_embedding)
        if hasattr(backbone, "num_channels"):
            self.num_channels: int = backbone.num_channels

    def forward(self, tensor_list: NestedTensor) -> tuple[list[NestedTensor], list[Tensor]]:
        """Images [B, 3, H, W] with their mask -> features and encodings [B, 2P, h, w] in their type, fine to coarse."""
        features: list[NestedTensor] = []
        positions: list[Tensor] = []
        for feature in self[0](tensor_list).values():
            features.append(feature)
            positions.append(self[1](feature).to(feature.tensors.dtype))
        return features, positions


def wanted_weights(args: argparse.Namespace) -> str | None:
    """`args.backbone_weights`, or None where another checkpoint brings the backbone's weights too."""
    if any(getattr(args, flag, None) for flag in ("resume", "init_from", "frozen_weights")):
        return None
    return getattr(args, "backbone_weights", "imagenet")


def build_backbone(args: argparse.Namespace) -> Joiner:
    """The trunk and position encoding that the command line asks for.

    Raises:
        ValueError, FileNotFoundError, CheckpointError: see `Backbone` and `build_position_encoding`.
    """
    position_embedding = build_position_encoding(args)
    train_backbone = args.lr_backbone > 0
    trainable_layers = getattr(args, "trainable_layers", 3)
    weights = wanted_weights(args)
    if weights == "none" and not (train_backbone and trainable_layers == 5):
        warnings.warn(
            "the backbone starts from random weights, and its frozen layers keep them "
            f"(--trainable_layers {trainable_layers}, --lr_backbone {args.lr_backbone}): to train from scratch pass "
            "--trainable_layers 5, --lr_backbone above 0 and a norm that learns, --backbone_norm gn or bn",
            stacklevel=2,
        )
    backbone = Backbone(
        args.backbone,
        train_backbone,
        return_interm_layers=args.masks,
        dilation=args.dilation,
        trainable_layers=trainable_layers,
        norm=getattr(args, "backbone_norm", "frozen_bn"),
        weights=weights,
    )
    return Joiner(backbone, position_embedding)
