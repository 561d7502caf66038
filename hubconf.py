"""Entry points for `torch.hub.load`: the published detectors, optionally with their weights, and two small ones; and
`predictor`, which takes images of any kind.

`torch.hub.load` also works in a process that has imported other modules named `models` or `util`. It leaves none of our
modules in `sys.modules` and restores `sys.path`, so the classes of a loaded model cannot be imported by name: save its
`state_dict()` instead of pickling the model.
"""

from __future__ import annotations

# torch.hub.list treats every callable as an entry point, so this file imports modules and no functions or classes.
import collections.abc
import contextlib
import importlib.util
import pathlib
import sys
import uuid
import warnings

import torch
from torch import nn

_HERE = pathlib.Path(__file__).resolve().parent
_PACKAGES = ("models", "util")
_PREDICTOR_PACKAGES = (*_PACKAGES, "datasets", "prediction")
_ours: dict[str, object] = {}  # the modules that belong to this file only


@contextlib.contextmanager
def _importing_from_here(packages: tuple[str, ...] = _PACKAGES) -> collections.abc.Iterator[bool]:
    """Inside this context, these packages are imported from the folder of this file.

    Yields:
        False if a plain import finds these packages: they are then shared with the rest of the process. Otherwise
        True: the imported modules belong to this file only, and on exit `sys.path` and the entries of these packages
        in `sys.modules` are restored.
    """
    if all(map(_is_importable, packages)):
        yield False
        return
    path, others = sys.path[:], _pop_packages(packages)
    sys.modules.update(_ours)
    sys.path.insert(0, str(_HERE))
    try:
        yield True
    finally:
        _ours.update(_pop_packages(packages))
        sys.modules.update(others)
        sys.path[:] = path


def _is_importable(package: str) -> bool:
    """Whether a plain import finds our package, and may leave it in `sys.modules`."""
    if package in sys.modules:
        file = getattr(sys.modules[package], "__file__", None)
    elif getattr(sys.modules.get(__name__), "__dict__", None) is globals():
        spec = importlib.util.find_spec(package)
        file = spec.origin if spec else None
    else:  # torch.hub runs this file without an entry in sys.modules, so its packages should not get one either
        return False
    return file is not None and pathlib.Path(file).resolve() == _HERE / package / "__init__.py"


def _pop_packages(packages: tuple[str, ...]) -> dict[str, object]:
    """Remove all modules of these packages from `sys.modules` and return them."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in packages}


def _keep_scriptable() -> None:
    """Let TorchScript compile a detector although the modules of its classes will not be in `sys.modules`.

    TorchScript identifies classes by name, but every load creates them again, so each gets a unique name. It finds the
    source of a class through `sys.modules`, so NestedTensor is compiled before its module is removed.
    """
    load = uuid.uuid4().hex
    for plain_class in (nested_tensor.NestedTensor, detr.DetectorOutput):
        plain_class._jit_override_qualname = f"__torch__.hub_{load}.{plain_class.__name__}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript's deprecation does not concern those who do not use it
        torch.jit.script(nested_tensor.NestedTensor)  # DetectorOutput, a NamedTuple, has no code


with _importing_from_here() as _private:
    from models import backbone, detr, panoptic, position_encoding, postprocess, segmentation, transformer
    from util import checkpoint, nested_tensor
    from util.loading import checkpoint_entries

    if _private:
        _keep_scriptable()

dependencies = ["torch", "numpy", "scipy", "PIL"]

WEIGHTS_URL = "https://dl.fbaipublicfiles.com/detr/"
SHIPPED = _HERE / "weights"


def detr_resnet50(
    pretrained: bool = False,
    num_classes: int = 91,
    return_postprocessor: bool = False,
    backbone_weights: str | None = None,
) -> nn.Module | tuple[nn.Module, nn.Module]:
    """DETR with ResNet-50 and six encoder and decoder layers: 42.0 box AP on COCO val5k with the published weights.

    Args:
        pretrained: load the published weights from torch.hub's cache, or download them there and check their hash;
            nothing else is downloaded.
        num_classes: largest class id + 1; the published weights have 91.
        return_postprocessor: also return the module that converts outputs to boxes in pixels.
        backbone_weights: for a model that is not pretrained: "imagenet", a file in torchvision's format, or None.

    Raises:
        ValueError: `pretrained` with another number of classes.
        CheckpointError: the weights cannot be downloaded or are damaged.
    """
    model = _make_detr("resnet50", False, num_classes, backbone_weights)
    return _finish(model, "detr-r50-e632da11.pth" if pretrained else None, num_classes, return_postprocessor)


def detr_resnet50_dc5(
    pretrained: bool = False,
    num_classes: int = 91,
    return_postprocessor: bool = False,
    backbone_weights: str | None = None,
) -> nn.Module | tuple[nn.Module, nn.Module]:
    """DETR-DC5 with ResNet-50 whose last stage is dilated: 43.3 box AP. Arguments as in `detr_resnet50`."""
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


def detr_resnet50_panoptic(
    pretrained: bool = False,
    num_classes: int = 250,
    threshold: float = 0.85,
    return_postprocessor: bool = False,
    backbone_weights: str | None = None,
) -> nn.Module | tuple[nn.Module, nn.Module]:
    """DETR with ResNet-50 and a mask head: 43.4 PQ on COCO val5k with the published weights.

    Args:
        pretrained: load the published weights from torch.hub's cache, or download them there and check their hash;
            nothing else is downloaded.
        num_classes: largest class id + 1; the published weights have 250.
        threshold: of the postprocessor, see `models.panoptic.PostProcessPanoptic`.
        return_postprocessor: also return the module that converts outputs to panoptic maps; ids up to 90 are things.
        backbone_weights: for a model that is not pretrained: "imagenet", a file in torchvision's format, or None.

    Raises:
        ValueError: `pretrained` with another number of classes.
        CheckpointError: the weights cannot be downloaded or are damaged.
    """
    model = _make_panoptic("resnet50", False, num_classes, backbone_weights)
    weights = "detr-r50-panoptic-00ce5173.pth" if pretrained else None
    return _finish_panoptic(model, weights, num_classes, threshold, return_postprocessor)


def detr_resnet50_dc5_panoptic(
    pretrained: bool = False,
    num_classes: int = 250,
    threshold: float = 0.85,
    return_postprocessor: bool = False,
    backbone_weights: str | None = None,
) -> nn.Module | tuple[nn.Module, nn.Module]:
    """DETR-DC5 with ResNet-50 and a mask head: 44.6 PQ. Arguments as in `detr_resnet50_panoptic`."""
    model = _make_panoptic("resnet50", True, num_classes, backbone_weights)
    weights = "detr-r50-dc5-panoptic-da08f1b1.pth" if pretrained else None
    return _finish_panoptic(model, weights, num_classes, threshold, return_postprocessor)


def detr_resnet101_panoptic(
    pretrained: bool = False,
    num_classes: int = 250,
    threshold: float = 0.85,
    return_postprocessor: bool = False,
    backbone_weights: str | None = None,
) -> nn.Module | tuple[nn.Module, nn.Module]:
    """DETR with ResNet-101 and a mask head: 45.1 PQ. Arguments as in `detr_resnet50_panoptic`."""
    model = _make_panoptic("resnet101", False, num_classes, backbone_weights)
    weights = "detr-r101-panoptic-40021d53.pth" if pretrained else None
    return _finish_panoptic(model, weights, num_classes, threshold, return_postprocessor)


def detr_tiny_shapes(
    pretrained: bool = False, return_postprocessor: bool = False
) -> nn.Module | tuple[nn.Module, nn.Module]:
    """A small detector (2 million parameters) for the images of `datasets.shapes`: 1 circle, 2 square, 3 triangle.

    It was trained on images of 96 pixels. Call `eval()` before inference: in training mode its batch norms update
    their statistics.

    Args:
        pretrained: load the weights shipped with this repository; nothing is downloaded.
        return_postprocessor: also return the module that converts outputs to boxes in pixels.

    Raises:
        CheckpointError: the weights are missing or damaged.
    """
    model = _make_tiny(num_classes=4)
    if pretrained:
        _load(model, str(SHIPPED / "detr_tiny_shapes.pth"))
    return (model, postprocess.PostProcess()) if return_postprocessor else model


def detr_tiny_shapes_panoptic(
    pretrained: bool = False, threshold: float = 0.85, return_postprocessor: bool = False
) -> nn.Module | tuple[nn.Module, nn.Module]:
    """`detr_tiny_shapes` with masks, which also segments the background: 4 stripes, 5 checks, 6 clouds.

    Args:
        pretrained: load the weights shipped with this repository; nothing is downloaded.
        threshold: of the postprocessor, see `models.panoptic.PostProcessPanoptic`.
        return_postprocessor: also return the module that converts outputs to panoptic maps.

    Raises:
        CheckpointError: the weights are missing or damaged.
    """
    model = segmentation.DETRsegm(_make_tiny(num_classes=7, all_levels=True))
    if pretrained:
        _load(model, str(SHIPPED / "detr_tiny_shapes_panoptic.pth"))
    if not return_postprocessor:
        return model
    return model, panoptic.PostProcessPanoptic({i: 1 <= i <= 3 for i in range(7)}, threshold=threshold)


def predictor(checkpoint: str, device: str = "auto", threshold: float | str = 0.5, **settings: object) -> object:
    """A `prediction.predictor.Predictor`: call it with a path, an address, a PIL image, an array, a tensor, a list or a
    generator of them.

    It needs the packages of requirements.txt, which the other entries do not.

    Args:
        checkpoint: a file or an http(s) address: a checkpoint, or what `tools.export` wrote (.onnx, .pt2, .xml).
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.
        threshold: minimum score of a detection, or "best", see `Predictor`.
        settings: further arguments of `Predictor`.

    Raises:
        CheckpointError, ValueError: the checkpoint or the device cannot be used.
        ImportError: a package is not installed.
    """
    with _importing_from_here(_PREDICTOR_PACKAGES):
        try:
            from prediction import predictor as room  # here, since the other entries do without its packages
        except ImportError as error:
            requirements = _HERE / "requirements.txt"
            raise ImportError(f"{error}, which the predictor needs: pip install -r {requirements}") from error
    return room.load_predictor(checkpoint, device, threshold=threshold, **settings)


def _make_tiny(num_classes: int, all_levels: bool = False) -> detr.DETR:
    trunk = backbone.Backbone("tiny", True, all_levels, True, trainable_layers=5, norm="bn")
    joiner = backbone.Joiner(trunk, position_encoding.PositionEmbeddingSine(64, temperature=20, normalize=True))
    layers = transformer.Transformer(128, 8, 2, 3, 512, dropout=0.0, return_intermediate_dec=True)
    return detr.DETR(joiner, layers, num_classes=num_classes, num_queries=12)


def _make_detr(
    backbone_name: str, dilation: bool, num_classes: int, backbone_weights: str | None, all_levels: bool = False
) -> detr.DETR:
    hidden_dim = 256
    trunk = backbone.Backbone(backbone_name, True, all_levels, dilation, weights=backbone_weights)
    joiner = backbone.Joiner(trunk, position_encoding.PositionEmbeddingSine(hidden_dim // 2, normalize=True))
    layers = transformer.Transformer(d_model=hidden_dim, return_intermediate_dec=True)
    return detr.DETR(joiner, layers, num_classes=num_classes, num_queries=100)


def _make_panoptic(
    backbone_name: str, dilation: bool, num_classes: int, backbone_weights: str | None
) -> segmentation.DETRsegm:
    return segmentation.DETRsegm(_make_detr(backbone_name, dilation, num_classes, backbone_weights, all_levels=True))


def _finish(
    model: detr.DETR, weights: str | None, num_classes: int, return_postprocessor: bool
) -> nn.Module | tuple[nn.Module, nn.Module]:
    _load_published(model, weights, num_classes, 91)
    return (model, postprocess.PostProcess()) if return_postprocessor else model


def _finish_panoptic(
    model: segmentation.DETRsegm, weights: str | None, num_classes: int, threshold: float, return_postprocessor: bool
) -> nn.Module | tuple[nn.Module, nn.Module]:
    _load_published(model, weights, num_classes, 250)
    if not return_postprocessor:
        return model
    return model, panoptic.PostProcessPanoptic({i: i <= 90 for i in range(num_classes)}, threshold=threshold)


def _load_published(model: nn.Module, weights: str | None, num_classes: int, published: int) -> None:
    if weights is None:
        return
    if num_classes != published:
        raise ValueError(f"the published weights have {published} classes, not {num_classes}: omit num_classes")
    _load(model, WEIGHTS_URL + weights)


def _load(model: nn.Module, source: str) -> None:
    checkpoint.load_weights(model, checkpoint_entries.model_of(checkpoint.load_checkpoint(source), source), source)
