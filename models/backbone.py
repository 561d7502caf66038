"""The convolutional backbone of DETR (paper, section 3.2): the levels it returns and the layers it trains.

Shapes: B batch, C channels, H and W of the padded image, h and w of a feature map.
"""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fast.folded_norm import can_fold
from models.fast.recompute import recomputed_stage
from models.frozen_batch_norm import FrozenBatchNorm2d
from models.position_encoding import build_position_encoding
from models.resnet import SPECS, NormLayer, build_resnet
from util.checkpoint import load_checkpoint, load_weights
from util.dist import is_main_process
from util.loading.download import download
from util.nested_tensor import NestedTensor

IMAGENET_URL = "https://download.pytorch.org/models/"
# torchvision's IMAGENET1K_V1, which DETR was trained with; torchvision's later weights compute other features.
IMAGENET_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}

# The order in which `trainable_layers` unfreezes the parts, as in torchvision
UNFREEZE_ORDER = (("layer4",), ("layer3",), ("layer2",), ("layer1",), ("conv1", "bn1"))


def group_norm(n: int) -> nn.GroupNorm:
    """Group norm (Wu and He, 2018) with at most 32 groups of equal size, at least 4 channels each if possible."""
    return nn.GroupNorm(math.gcd(n, max(1, min(32, n // 4))), n)


NORM_LAYERS: dict[str, NormLayer] = {"frozen_bn": FrozenBatchNorm2d, "bn": nn.BatchNorm2d, "gn": group_norm}


STEM = ["conv1", "bn1", "relu"]


class IntermediateLayers(nn.ModuleDict):
    """Runs the children of a network one after the other and returns the outputs of some of them.

    Args:
        network: a module whose forward calls its children in their order, at least up to the last returned one.
        return_layers: name of a child -> key of its output.
    """

    __constants__ = ["folds"]
    __jit_unused_properties__ = ["folds"]

    def __init__(self, network: nn.Module, return_layers: dict[str, str]):
        children = dict(network.named_children())
        names = list(children)
        missing = [name for name in return_layers if name not in children]
        if missing:
            raise ValueError(f"the backbone has no {', '.join(missing)}: its children are {', '.join(names)}")
        last = max(names.index(name) for name in return_layers)
        super().__init__({name: children[name] for name in names[: last + 1]})
        self.return_layers = dict(return_layers)
        self.recompute = False  # see `models.fast.recompute`
        self.fast = True

    @property
    def folds(self) -> bool:
        """Whether the norm of the stem is folded into its convolution, see `models.resnet.Block`."""
        return self.fast and list(self)[:3] == STEM and can_fold(*(self[name] for name in STEM))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W] -> {key: [B, C, h, w]}, finest level first."""
        outputs: dict[str, Tensor] = {}
        done: list[str] = []  # what the folded form of the stem has computed
        if self.folds:
            geometry = (self["conv1"].stride, self["conv1"].padding, self["conv1"].dilation)
            x = x.contiguous(memory_format=torch.channels_last)
            x = self["bn1"].after_conv(x, self["conv1"].weight, geometry, relu=True)
            done = ["conv1", "bn1", "relu"]
        for name, layer in self.items():
            if name not in done:
                x = recomputed_stage(layer, x) if not torch.jit.is_scripting() and self.recompute else layer(x)
            if name in self.return_layers:
                outputs[self.return_layers[name]] = x
        return outputs


class BackboneBase(nn.Module):
    """A convolutional network, partly frozen, that returns features with their padding masks.

    Args:
        backbone: a network with the children conv1, bn1, relu, maxpool and layer1 to layer4, run in this order
            (later children are dropped): `models.resnet.ResNet` or torchvision's.
        train_backbone: False freezes every parameter.
        num_channels: channels of the last stage.
        return_interm_layers: return all four stages as "0" to "3"; otherwise only the last one, as "0".
        trainable_layers: how many parts to train if `train_backbone`, counted from the end: 3 (published) trains
            layer2 to layer4, 4 also layer1, 5 also the stem.

    Raises:
        ValueError: `trainable_layers` outside 0 to 5, or a network without these stages.
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
        if trainable_layers not in range(len(UNFREEZE_ORDER) + 1):
            raise ValueError(
                f"trainable_layers must be in 0..{len(UNFREEZE_ORDER)}, got {trainable_layers}: pass another "
                "--trainable_layers"
            )
        trainable = {name for part in UNFREEZE_ORDER[:trainable_layers] for name in part}
        for name, parameter in backbone.named_parameters():
            if not train_backbone or name.split(".")[0] not in trainable:
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
        dilation: give the last stage stride 16 instead of 32 (DC5; paper, section 4).
        norm: "frozen_bn" (published), "bn" or "gn".
        weights: None or "none" for random weights, "imagenet" (downloaded once into torch.hub's cache), or the path of
            a state_dict in torchvision's format. Loaded on the main process only: DDP broadcasts them to the others.

    Attributes:
        num_channels: channels of the last level.
        channels, strides: of all returned levels, finest first.

    Raises:
        ValueError: an unknown name or norm; `trainable_layers` outside 0 to 5; ImageNet weights that do not exist.
        FileNotFoundError: there is no file at `weights`.
        CheckpointError: the ImageNet weights cannot be downloaded; a file cannot be read or does not fit the network.
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
        check_backbone(name, norm, weights)  # on every rank, so that no rank waits for a main process that failed
        resnet = build_resnet(name, norm_layer=NORM_LAYERS[norm], dilation=dilation)
        if weights not in (None, "none") and is_main_process():
            state = load_checkpoint(_imagenet_file(name) if weights == "imagenet" else weights)
            source = IMAGENET_FILES[name] if weights == "imagenet" else weights
            state = {
                key: value for key, value in state.items() if not str(key).startswith("fc.")
            }  # drop the classifier
            load_weights(resnet, state, source)
        super().__init__(
            resnet, train_backbone, resnet.channels[-1], return_interm_layers, trainable_layers=trainable_layers
        )
        self.channels = resnet.channels if return_interm_layers else resnet.channels[-1:]
        self.strides = resnet.strides if return_interm_layers else resnet.strides[-1:]


def check_backbone(name: str, norm: str, weights: str | None) -> None:
    """Check the arguments of a `Backbone` before anything is built.

    Raises:
        ValueError: an unknown name or norm, or there are no ImageNet weights for them.
        FileNotFoundError: there is no file at `weights`.
    """
    if name not in SPECS:
        raise ValueError(f"unknown backbone {name!r}: choose one of {', '.join(SPECS)}")
    if norm not in NORM_LAYERS:
        raise ValueError(f"unknown backbone norm {norm!r}: choose one of {', '.join(NORM_LAYERS)}")
    if weights == "imagenet" and name not in IMAGENET_FILES:
        raise ValueError(
            f"there are no ImageNet weights for the backbone {name}: pass --backbone_weights none or one of "
            f"--backbone {', '.join(IMAGENET_FILES)}"
        )
    if weights == "imagenet" and norm == "gn":
        raise ValueError(
            "the ImageNet weights were trained with batch norm and do not fit --backbone_norm gn: pass "
            "--backbone_weights none or --backbone_norm frozen_bn or bn"
        )
    # Only the main process reads the file, so it need not exist on other machines.
    if weights not in (None, "none", "imagenet") and is_main_process() and not Path(weights).is_file():
        raise FileNotFoundError(
            f"there are no backbone weights at {weights}: pass --backbone_weights imagenet, none, or the path of a "
            "state_dict in torchvision's format"
        )


def _imagenet_file(name: str) -> Path:
    """torchvision's weights from torch.hub's cache, or downloaded there; their hash is checked."""
    filename = IMAGENET_FILES[name]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    advice = f"put the file {filename} into the folder {folder}, or train without it: --backbone_weights none"
    return download(IMAGENET_URL + filename, "the ImageNet weights", advice)


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
        """Images [B, 3, H, W] with their mask -> features and encodings [B, 2P, h, w] of one type, finest first."""
        features: list[NestedTensor] = []
        positions: list[Tensor] = []
        for feature in self[0](tensor_list).values():
            features.append(feature)
            positions.append(self[1](feature).to(feature.tensors.dtype))
        return features, positions


def wanted_weights(args: argparse.Namespace) -> str | None:
    """`args.backbone_weights`, or None if a checkpoint will provide the weights of the backbone."""
    if any(getattr(args, flag, None) for flag in ("resume", "init_from", "frozen_weights")):
        return None
    return getattr(args, "backbone_weights", "imagenet")


def build_backbone(args: argparse.Namespace) -> Joiner:
    """Backbone and position encoding for the command line's settings.

    Raises:
        ValueError, FileNotFoundError, CheckpointError: see `Backbone` and `build_position_encoding`.
    """
    position_embedding = build_position_encoding(args)
    train_backbone = args.lr_backbone > 0
    trainable_layers = getattr(args, "trainable_layers", 3)
    weights = wanted_weights(args)
    if weights == "none" and not (train_backbone and trainable_layers == 5):
        warnings.warn(
            "the backbone starts from random weights, and its frozen layers stay random "
            f"(--trainable_layers {trainable_layers}, --lr_backbone {args.lr_backbone}): to train from scratch pass "
            "--trainable_layers 5, a positive --lr_backbone and a trainable norm (--backbone_norm gn or bn)",
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
