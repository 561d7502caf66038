"""Convert detectors to Hugging Face's `DetrForObjectDetection` and back; each conversion is verified.

python -m tools.convert RUN/checkpoint.pth FOLDER          # writes a folder for DetrForObjectDetection.from_pretrained
python -m tools.convert RUN/checkpoint.pth FOLDER --timm   # with timm's backbone, as in the published folders
python -m tools.convert FOLDER checkpoint.pth              # reads config.json and model.safetensors
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.load import load_detector
from models.resnet import SPECS, Bottleneck
from tools.command import run_tool, tool_parser
from tools.convert_keys import from_huggingface, to_huggingface
from util.checkpoint import CheckpointError, save_checkpoint
from util.nested_tensor import NestedTensor

TOLERANCE = 1e-4  # absolute, for logits and boxes
_UNNAMED = ("N/A", "LABEL_")  # placeholders for unnamed classes in Hugging Face's configs


def convert_to_huggingface(checkpoint: str | Path, folder: Path, timm: bool = False) -> float:
    """Write a checkpoint of this library, or a published one, as a folder that transformers can load.

    Args:
        checkpoint: a file or an address, see `models.load.load_detector`.
        folder: receives config.json and model.safetensors; must not exist.
        timm: use timm's names for the backbone. Loading the folder then needs timm. Required for --dilation, which
            can be converted for ResNet-50 and deeper only.

    Returns:
        The largest difference between the logits and boxes of the two models.

    Raises:
        ValueError: Hugging Face's model lacks a setting of this one, or the folder exists.
        CheckpointError: the checkpoint cannot be read, or the two models differ; nothing is written.
    """
    if folder.exists():
        raise ValueError(f"{folder} already exists: choose a new folder")
    import transformers
    from safetensors.torch import save_file

    detector = load_detector(checkpoint, "cpu")
    config = transformers.DetrConfig(**_their_settings(detector.args, timm), **_their_classes(detector))
    config.architectures = ["DetrForObjectDetection"]
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        config.save_pretrained(partial)
        weights = to_huggingface(detector.model.state_dict(), timm)
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
        difference = verify(detector.model, _load_theirs(partial))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return difference


def convert_from_huggingface(folder: Path, out: Path) -> float:
    """Write a folder of transformers as a checkpoint of this library; returns and raises as `convert_to_huggingface`.

    Settings and class names are taken from config.json and stored in the checkpoint.
    """
    import transformers
    from safetensors.torch import load_file

    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder} has no model.safetensors: save the model with save_pretrained as a single file")
    config = transformers.DetrConfig.from_pretrained(folder)
    names = {int(number): name for number, name in config.id2label.items() if not name.startswith(_UNNAMED)}
    checkpoint = {
        "model": from_huggingface(load_file(folder / "model.safetensors")),
        "args": _our_settings(config),
        "categories": [{"id": number, "name": name} for number, name in sorted(names.items())] or None,
    }
    difference = verify(load_detector(checkpoint, "cpu").model, _load_theirs(folder))
    save_checkpoint(out, checkpoint)
    return difference


@torch.no_grad()
def verify(ours: nn.Module, theirs: nn.Module) -> float:
    """The largest difference between the logits and boxes of two models on two random images, one of them padded.

    Raises:
        CheckpointError: it exceeds 1e-4.
    """
    images = torch.randn(2, 3, 128, 160, generator=torch.Generator().manual_seed(0))
    padding = torch.zeros(2, 128, 160, dtype=torch.bool)
    padding[1, 96:] = padding[1, :, 120:] = True
    images.masked_fill_(padding[:, None], 0)
    outputs = ours.eval()(NestedTensor(images, padding))
    others = theirs.eval()(pixel_values=images, pixel_mask=(~padding).long())  # there 1 is image, 0 padding
    pairs = ((outputs["pred_logits"], others.logits), (outputs["pred_boxes"], others.pred_boxes))
    difference = max(_largest_difference(one, other) for one, other in pairs)
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"the converted model gives different results: logits or boxes differ by {difference:.2g}, the limit is "
            f"{TOLERANCE:g}. Nothing was written; the model has a part that this converter does not support"
        )
    return difference


def _largest_difference(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item() if one.shape == other.shape else float("inf")


def _load_theirs(folder: Path) -> nn.Module:
    import transformers

    try:
        return transformers.DetrForObjectDetection.from_pretrained(folder)
    except ImportError as error:
        raise ValueError(f"transformers cannot build the model ({error}): pip install timm") from error


def _their_settings(args: argparse.Namespace, timm: bool) -> dict[str, Any]:
    """The arguments of `DetrConfig`."""
    unsupported = {
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


def _their_classes(detector: Any) -> dict[str, Any]:
    """Ids and names of the classes; an id without a category is N/A, as in the published files."""
    names = {category["id"]: category["name"] for category in detector.categories}
    id2label = {number: names.get(number, "N/A") for number in range(detector.args.num_classes)}
    return {"id2label": id2label, "label2id": {name: number for number, name in id2label.items()}}


def _our_settings(config: Any) -> dict[str, Any]:
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
    raise ValueError(f"the backbone in config.json is {name}: this library supports {', '.join(SPECS)}")


def main(options: argparse.Namespace) -> None:
    """Convert in the direction that the source implies."""
    if (Path(options.source) / "config.json").is_file():
        difference = convert_from_huggingface(Path(options.source), options.out)
    else:
        difference = convert_to_huggingface(options.source, options.out, options.timm)
    print(f"wrote {options.out}: logits and boxes of both models agree within {difference:.1e}")


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("source", help="a checkpoint of this library, or a folder of transformers")
    parser.add_argument("out", type=Path, help="the folder or checkpoint to write")
    parser.add_argument("--timm", action="store_true", help="name the backbone's weights as timm does")
    return run_tool(parser, main, argv, packages="-r requirements-dev.txt")


if __name__ == "__main__":
    sys.exit(run())
