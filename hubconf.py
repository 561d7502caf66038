"""Entry points of `torch.hub.load`: the published detectors, with their weights on request."""

from __future__ import annotations

from torch import nn

from models.backbone import Backbone, Joiner
from models.detr import DETR
from models.position_encoding import PositionEmbeddingSine
from models.postprocess import PostProcess
from models.transformer import Transformer
from util.checkpoint import load_checkpoint, load_weights

dependencies = ["torch", "numpy", "scipy"]

WEIGHTS_URL = "https://dl.fbaipublicfiles.com/detr/"


def detr_resnet50(
    pretrained: bool = False,
    num_classes: int = 91,
    return_postprocessor: bool = False,
    backbone_weights: str | None = None,
) -> nn.Module | tuple[nn.Module, nn.Module]:
    """DETR with ResNet-50 and six encoder and decoder layers: 42.0 box AP on COCO val5k with the published weights.

    Args:
        pretrained: load the published weights, hash checked, through torch.hub's cache; nothing else is downloaded.
        num_classes: largest class id + 1; the published weights have 91.
        return_postprocessor: also return the module that turns outputs into boxes in pixels.
        backbone_weights: for a model that is not pretrained: "imagenet", a file in torchvision's format, or None.

    Raises:
        ValueError: `pretrained` with another number of classes.
        CheckpointError: the weights cannot be had.
    """
    model = _make_detr("resnet50", False, num_classes, backbone_weights)
    return _finish(model, "detr-r50-e632da11.pth" if pretrained else None, num_classes, return_postprocessor)


def detr_resnet50_dc5(
    pretrained: bool = False,
    num_classes: int = 91,
    return_postprocessor: bool = False,
    backbone_weights: str | None = None,
) -> nn.Module | tuple[nn.Module, nn.Module]:
    """DETR-DC5 with ResNet-50, its last stage dilated: 43.3 box AP. Arguments as in `detr_resnet50`."""
    model = _make_detr("resnet50", True, num_classes, backbone_weights)
    return _finish(model, "detr-r50-dc5-f0fb7ef5.pth" if pretrained else None, num_classes, return_postprocessor)


def detr_resnet101(
    pretrained: bool = False,
    num_classes: int = 91,
    return_postprocessor: bool = False,
    backbone_weights: str | None = None,
) -> nn.Module | tuple[nn.Module, nn.Module]:
    """DETR with ResNet-101: 43.5 box AP. Arguments as in `detr_resnet50`."""
    model = _make_detr("resnet101", False, num_classes, backbone_weights)
    return _finish(model, "detr-r101-2c7b67e5.pth" if pretrained else None, num_classes, return_postprocessor)


def detr_resnet101_dc5(
    pretrained: bool = False,
    num_classes: int = 91,
    return_postprocessor: bool = False,
    backbone_weights: str | None = None,
) -> nn.Module | tuple[nn.Module, nn.Module]:
    """DETR-DC5 with ResNet-101: 44.9 box AP. Arguments as in `detr_resnet50`."""
    model = _make_detr("resnet101", True, num_classes, backbone_weights)
    return _finish(model, "detr-r101-dc5-a2e86def.pth" if pretrained else None, num_classes, return_postprocessor)


def _make_detr(backbone_name: str, dilation: bool, num_classes: int, backbone_weights: str | None) -> DETR:
    hidden_dim = 256
    backbone = Backbone(backbone_name, True, False, dilation, weights=backbone_weights)
    joiner = Joiner(backbone, PositionEmbeddingSine(hidden_dim // 2, normalize=True))
    joiner.num_channels = backbone.num_channels
    transformer = Transformer(d_model=hidden_dim, return_intermediate_dec=True)
    return DETR(joiner, transformer, num_classes=num_classes, num_queries=100)


def _finish(
    model: DETR, weights: str | None, num_classes: int, return_postprocessor: bool
) -> nn.Module | tuple[nn.Module, nn.Module]:
    if weights is not None:
        if num_classes != 91:
            raise ValueError(f"the published weights have 91 classes, not {num_classes}: leave num_classes out")
        url = WEIGHTS_URL + weights
        load_weights(model, load_checkpoint(url)["model"], url)
    return (model, PostProcess()) if return_postprocessor else model
