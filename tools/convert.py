"""Detectors from here to Hugging Face's `DetrForObjectDetection` and back; each conversion proves itself.

python -m tools.convert RUN/checkpoint.pth FOLDER          # a folder for DetrForObjectDetection.from_pretrained
python -m tools.convert RUN/checkpoint.pth FOLDER --timm   # with a backbone of timm's, as the published ones have
python -m tools.convert FOLDER checkpoint.pth              # a folder of config.json and model.safetensors
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.load import load_detector
from models.resnet import SPECS, Bottleneck
from tools.convert_keys import from_huggingface, to_huggingface
from util.checkpoint import CheckpointError, save_checkpoint
from util.nested_tensor import NestedTensor

TOLERANCE = 1e-4  # of logits and boxes
_UNNAMED = ("N/A", "LABEL_")  # what stands in their list of classes where there is no name


def convert_to_huggingface(checkpoint: str | Path, folder: Path, timm: bool = False) -> float:
    """Write a checkpoint of ours, or a published one, as a folder that transformers loads.

    Args:
        checkpoint: file or address, see `models.load.load_detector`.
        folder: gets config.json and model.safetensors; must not exist.
        timm: name the backbone as timm does; needs timm where it is loaded, and is the only way for --dilation, of
            ResNet-50 and deeper.

    Returns:
        The largest difference between the two models' logits and boxes.

    Raises:
        ValueError: a setting that their model does not have, or a folder that exists.
        CheckpointError: the checkpoint cannot be read, or the two models differ; nothing is left behind.
    """
    if folder.exists():
        raise ValueError(f"{folder} exists: name a folder that does not")
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
        difference = prove(detector.model, _load_theirs(partial))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return difference


def convert_from_huggingface(folder: Path, out: Path) -> float:
    """Write a folder of transformers' as a checkpoint of ours; arguments, result and errors as in the other direction.

    Settings and class names come from config.json and travel in the checkpoint.
    """
    import transformers
    from safetensors.torch import load_file

    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder} has no model.safetensors: save the model by save_pretrained, in one file")
    config = transformers.DetrConfig.from_pretrained(folder)
    names = {int(number): name for number, name in config.id2label.items() if not name.startswith(_UNNAMED)}
    checkpoint = {
        "model": from_huggingface(load_file(folder / "model.safetensors")),
        "args": _our_settings(config),
        "categories": [{"id": number, "name": name} for number, name in sorted(names.items())] or None,
    }
    difference = prove(load_detector(checkpoint, "cpu").model, _load_theirs(folder))
    save_checkpoint(out, checkpoint)
    return difference


@torch.no_grad()
def prove(ours: nn.Module, theirs: nn.Module) -> float:
    """The largest difference between logits and boxes of two models on two random images, one of them padded.

    Raises:
        CheckpointError: it is above 1e-4.
    """
    images = torch.randn(2, 3, 128, 160, generator=torch.Generator().manual_seed(0))
    padding = torch.zeros(2, 128, 160, dtype=torch.bool)
    padding[1, 96:] = padding[1, :, 120:] = True
    images.masked_fill_(padding[:, None], 0)
    outputs = ours.eval()(NestedTensor(images, padding))
    others = theirs.eval()(pixel_values=images, pixel_mask=(~padding).long())  # theirs: 1 = picture
    pairs = ((outputs["pred_logits"], others.logits), (outputs["pred_boxes"], others.pred_boxes))
    difference = max(_largest_difference(one, other) for one, other in pairs)
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"the converted model does not compute the same: logits or boxes differ by {difference:.2g}, allowed is "
            f"{TOLERANCE:g}. Nothing was written; the model has a part that this converter does not know"
        )
    return difference


def _largest_difference(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item() if one.shape == other.shape else float("inf")


def _load_theirs(folder: Path) -> nn.Module:
    import transformers

    try:
        return transformers.DetrForObjectDetection.from_pretrained(folder)
    except ImportError as error:
        raise ValueError(f"transformers cannot build the other side ({error}): pip install timm") from error


def _their_settings(args: argparse.Namespace, timm: bool) -> dict[str, Any]:
    """Arguments of `DetrConfig`."""
    refused = {
        "--pre_norm": args.pre_norm,
        f"--pos_temperature {args.pos_temperature:g}": args.pos_temperature != 10000,
        f"--backbone_norm {args.backbone_norm}": args.backbone_norm == "gn",
        "--backbone tiny in timm: leave out --timm": timm and args.backbone == "tiny",
        # timm widens the second convolution of the first block too, where ours and torchvision's rule does not
        f"--dilation with {args.backbone}": args.dilation and SPECS[args.backbone].block is not Bottleneck,
        "--dilation without timm: pass --timm": args.dilation and not timm,
    }
    found = [setting for setting, is_so in refused.items() if is_so]
    if found:
        raise ValueError(f"Hugging Face's DETR cannot have what this model was trained with: {'; '.join(found)}")
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
    """What sets one of our backbones apart, in the words of `ResNetConfig`."""
    spec = SPECS[name]
    return {
        "embedding_size": spec.widths[0],
        "hidden_sizes": [width * spec.block.expansion for width in spec.widths],
        "depths": list(spec.depths),
        "layer_type": "bottleneck" if spec.block is Bottleneck else "basic",
    }


def _their_classes(detector: Any) -> dict[str, Any]:
    """Numbers and names of the classes; an id that no category has is N/A, as in the published files."""
    names = {category["id"]: category["name"] for category in detector.categories}
    id2label = {number: names.get(number, "N/A") for number in range(detector.args.num_classes)}
    return {"id2label": id2label, "label2id": {name: number for number, name in id2label.items()}}


def _our_settings(config: Any) -> dict[str, Any]:
    """The flags that build the same model here.

    Raises:
        ValueError: the model has a part that ours cannot have.
    """
    for what in ("attention_heads", "ffn_dim"):
        if getattr(config, f"encoder_{what}") != getattr(config, f"decoder_{what}"):
            raise ValueError(f"encoder_{what} and decoder_{what} differ in config.json: DETR here has one for both")
    if config.activation_function != "relu":
        raise ValueError(f"activation_function {config.activation_function!r} in config.json: DETR here has relu")
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
    """Name in `SPECS`, and whether the last stage is dilated."""
    described = config.backbone_config
    if described is None or described.model_type == "timm_backbone":
        name = config.backbone if described is None else described.backbone
        if name in SPECS:
            return name, bool(config.dilation)
    elif described.model_type == "resnet":
        for name in SPECS:
            if all(getattr(described, key) == value for key, value in _resnet_settings(name).items()):
                return name, False
        name = "a ResNet of other widths or depths"
    else:
        name = described.model_type
    raise ValueError(f"the backbone in config.json is {name}, and here there are {', '.join(SPECS)}")


def run(argv: list[str] | None = None) -> int:
    """The command; the exit code is 1 where something cannot be converted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a checkpoint of ours, or a folder of transformers'")
    parser.add_argument("out", type=Path, help="the folder, or the checkpoint, to write")
    parser.add_argument("--timm", action="store_true", help="write the backbone as timm's")
    options = parser.parse_args(argv)
    try:
        if (Path(options.source) / "config.json").is_file():
            difference = convert_from_huggingface(Path(options.source), options.out)
        else:
            difference = convert_to_huggingface(options.source, options.out, options.timm)
    except ImportError as error:
        print(f"error: {error}: pip install -r requirements-dev.txt", file=sys.stderr)
        return 1
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.out}: logits and boxes of both models agree within {difference:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(run())
