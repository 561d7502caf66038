"""Settings, class names and the preparation of images: this library's, and those in Hugging Face's configurations."""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from datasets.coco import MAX_SIZE, VAL_SIZE
from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD
from models.resnet import SPECS, Bottleneck
from util.loading.class_thresholds import is_thresholds
from util.loading.json_text import read_json
from util.text import printable

CATEGORIES = "detr_categories"  # our key in config.json: the categories as they are in the checkpoint
THRESHOLDS = "detr_thresholds"  # our key in config.json: those of the classes, and the checksum of their weights
UNNAMED = "N/A"  # the name of an id without a category, as in the published files
BILINEAR = 2  # Pillow's number of the filter
ROUNDING = 1e-3  # of mean and standard deviation


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        ValueError: it is no JSON object, or describes another kind of model than `DetrForObjectDetection`.
    """
    config = _read_object(folder / "config.json")
    kind, architectures = config.get("model_type"), config.get("architectures") or ["DetrForObjectDetection"]
    if kind != "detr" or architectures != ["DetrForObjectDetection"]:
        raise ValueError(
            f"{folder / 'config.json'} describes {printable(architectures, 80)} of model_type {printable(kind, 40)}: "
            "only DetrForObjectDetection of model_type detr can be converted"
        )
    name = config.get("backbone")
    if config.get("backbone_config") is None and name not in SPECS:  # transformers would look for it in the internet
        raise ValueError(_unknown_backbone(printable(name, 40)))
    return config


def _unknown_backbone(what: str) -> str:
    return f"the backbone in config.json is {what}: this library supports {', '.join(SPECS)}"


def _read_object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, not a JSON object: save it with save_pretrained")
    return content


def their_settings(args: argparse.Namespace, timm: bool) -> dict[str, Any]:
    """The arguments of `DetrConfig`."""
    unsupported = {
        "--masks: only boxes are converted": args.masks,
        "--pre_norm": args.pre_norm,
        f"--pos_temperature {args.pos_temperature:g}": args.pos_temperature != 10000,
        f"--backbone_norm {args.backbone_norm}": args.backbone_norm == "gn",
        "--backbone tiny, which timm lacks: omit --timm": timm and args.backbone == "tiny",
        # timm also dilates the second convolution of the first block; torchvision and this library do not
        f"--dilation with {args.backbone}": args.dilation and SPECS[args.backbone].block is not Bottleneck,
        "--dilation without timm: pass --timm": args.dilation and not timm,
    }
    found = [setting for setting, is_used in unsupported.items() if is_used]
    if found:
        raise ValueError(f"Hugging Face's DETR does not support settings of this model: {'; '.join(found)}")
    settings: dict[str, Any] = {
        "d_model": args.hidden_dim,
        "encoder_layers": args.enc_layers,
        "decoder_layers": args.dec_layers,
        "num_queries": args.num_queries,
        "position_embedding_type": "learned" if args.position_embedding in ("v3", "learned") else "sine",
        "use_pretrained_backbone": False,
    }
    settings |= {f"{stack}_attention_heads": args.nheads for stack in ("encoder", "decoder")}
    settings |= {f"{stack}_ffn_dim": args.dim_feedforward for stack in ("encoder", "decoder")}
    settings |= dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), args.dropout)
    if timm:
        return settings | {"use_timm_backbone": True, "backbone": args.backbone, "dilation": args.dilation}
    import transformers

    resnet = transformers.ResNetConfig(**_resnet_settings(args.backbone), out_features=["stage4"])
    return settings | {"use_timm_backbone": False, "backbone": None, "backbone_config": resnet}


def _resnet_settings(name: str) -> dict[str, Any]:
    """The shape of one of our backbones as arguments of `ResNetConfig`."""
    spec = SPECS[name]
    return {
        "embedding_size": spec.widths[0],
        "hidden_sizes": [width * spec.block.expansion for width in spec.widths],
        "depths": list(spec.depths),
        "layer_type": "bottleneck" if spec.block is Bottleneck else "basic",
    }


def our_settings(config: Any) -> dict[str, Any]:
    """The flags that build the same model here.

    Raises:
        ValueError: the model has a part that this library does not support.
    """
    for what in ("attention_heads", "ffn_dim"):
        if getattr(config, f"encoder_{what}") != getattr(config, f"decoder_{what}"):
            raise ValueError(f"encoder_{what} and decoder_{what} differ in config.json: here they must be equal")
    if config.activation_function != "relu":
        raise ValueError(
            f"activation_function is {config.activation_function!r} in config.json: only relu is supported"
        )
    backbone, dilation = _our_backbone(config)
    return {
        "backbone": backbone,
        "dilation": dilation,
        "backbone_norm": "frozen_bn",
        "position_embedding": config.position_embedding_type,
        "hidden_dim": config.d_model,
        "nheads": config.encoder_attention_heads,
        "dim_feedforward": config.encoder_ffn_dim,
        "enc_layers": config.encoder_layers,
        "dec_layers": config.decoder_layers,
        "dropout": config.dropout,
        "num_queries": config.num_queries,
        "num_classes": config.num_labels,
    }


def _our_backbone(config: Any) -> tuple[str, bool]:
    """The backbone's name in `SPECS`, and whether its last stage is dilated."""
    described = config.backbone_config
    if described is None or described.model_type == "timm_backbone":
        name = config.backbone if described is None else described.backbone
        if name in SPECS:
            return name, bool(config.dilation)
    elif described.model_type == "resnet":
        for name in SPECS:
            if all(getattr(described, key) == value for key, value in _resnet_settings(name).items()):
                return name, False
        name = "a ResNet with other widths or depths"
    else:
        name = described.model_type
    raise ValueError(_unknown_backbone(name))


def their_classes(categories: Sequence[Mapping[str, Any]], num_classes: int) -> dict[str, Any]:
    """`id2label` and `label2id`: a name for every class id; of ids with the same name, `label2id` has the first."""
    names = {category["id"]: str(category["name"]) for category in categories}
    id2label = {number: names.get(number, UNNAMED) for number in range(num_classes)}
    return {"id2label": id2label, "label2id": {name: number for number, name in reversed(id2label.items())}}


def our_categories(config: Mapping[str, Any], id2label: Mapping[int, str]) -> list[dict[str, Any]]:
    """The categories of a model.

    Those that this converter wrote are returned unchanged, as long as `id2label` still agrees with them. Else they are
    made of `id2label`, without the placeholders of ids that have no name.

    Args:
        config: the content of config.json.
        id2label: of transformers' configuration.

    Raises:
        ValueError: a class id that the model does not have.
    """
    labels = {int(number): str(name) for number, name in id2label.items()}
    beyond = sorted(number for number in labels if not 0 <= number < len(labels))
    if beyond:
        raise ValueError(
            f"id2label in config.json names class {beyond[0]}, but a model with {len(labels)} labels has the classes "
            f"0 to {len(labels) - 1}: number the labels from 0, without gaps"
        )
    own = config.get(CATEGORIES)
    if _are_categories(own, len(labels)) and their_classes(own, len(labels))["id2label"] == labels:
        return own
    unnamed = {number: (UNNAMED, f"LABEL_{number}") for number in labels}
    return [
        {"id": number, "name": labels[number]} for number in sorted(labels) if labels[number] not in unnamed[number]
    ]


def their_thresholds(thresholds: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The entry of config.json for the thresholds of the classes, which belong to these weights alone."""
    return {**thresholds, "weights": _checksum(weights)}


def our_thresholds(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The thresholds in config.json; None if there are none, or if the weights were trained further since."""
    entry = config.get(THRESHOLDS)
    if not is_thresholds(entry) or entry.get("weights") != _checksum(weights):
        return None
    return {name: value for name, value in entry.items() if name != "weights"}


def _checksum(weights: Mapping[str, Tensor]) -> int:
    checksum = 0
    for name in sorted(weights):
        checksum = zlib.crc32(weights[name].contiguous().numpy(), zlib.crc32(name.encode(), checksum))
    return checksum


def _are_categories(own: Any, num_classes: int) -> bool:
    """Whether this is a list of categories with different ids below `num_classes`, as this converter writes it."""
    if not isinstance(own, list) or not all(isinstance(category, dict) for category in own):
        return False
    ids = [category.get("id") for category in own]
    return all(type(number) is int and 0 <= number < num_classes for number in ids) and (
        len(set(ids)) == len(ids) and all(isinstance(category.get("name"), str) for category in own)
    )


def their_processing(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `DetrImageProcessor` that prepare images as this library does."""
    return {
        "size": {"shortest_edge": args.val_size or VAL_SIZE, "longest_edge": args.max_size or MAX_SIZE},
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
        "resample": BILINEAR,
        **dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_pad"), True),
        "rescale_factor": 1 / 255,
    }


def our_sizes(folder: Path) -> dict[str, int]:
    """The flags `val_size` and `max_size` of an image processor's configuration; without one, transformers' defaults.

    Raises:
        ValueError: it prepares images in a way that this library does not.
    """
    path = folder / "preprocessor_config.json"
    config: Any = {}
    if path.is_file():
        config = _read_object(path)
    elif (folder / "processor_config.json").is_file():
        path = folder / "processor_config.json"
        config = _read_object(path).get("image_processor", {})
    size = config.get("size") or {}
    size = {"shortest_edge": size} if isinstance(size, int) else dict(size)
    shortest, longest = (
        size.pop("shortest_edge", VAL_SIZE),
        size.pop("longest_edge", config.get("max_size") or MAX_SIZE),
    )
    differing = [name for name in ("do_resize", "do_rescale", "do_normalize") if config.get(name, True) is not True]
    if size or not all(type(side) is int and side >= 1 for side in (shortest, longest)):
        differing.append("size")
    if config.get("resample", BILINEAR) != BILINEAR:
        differing.append("resample")
    expected = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD, "rescale_factor": (1 / 255,)}
    for name, values in expected.items():
        if not _close(config.get(name, values), values):
            differing.append(name)
    if differing:
        found = ", ".join(f"{name} {printable(config.get(name), 60)}" for name in differing)
        raise ValueError(
            f"{path} prepares images in another way than this library ({found}), so that the converted model would "
            "find other objects: the shortest and longest edge can be set, images are resized bilinearly, divided by "
            "255 and normalised with ImageNet's mean and standard deviation"
        )
    return {"val_size": shortest, "max_size": longest}


def _close(found: Any, expected: Sequence[float]) -> bool:
    numbers = found if isinstance(found, list | tuple) else [found]
    return len(numbers) == len(expected) and all(
        isinstance(number, int | float) and abs(number - value) <= ROUNDING * value
        for number, value in zip(numbers, expected)
    )
