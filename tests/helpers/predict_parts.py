"""What the tests of prediction share: a tiny detector with random weights in a checkpoint of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from PIL import Image

import predict
from models import build_model
from models.load import load_detector
from tests.helpers.runs import parse
from util.checkpoint import load_checkpoint, save_checkpoint

CATEGORIES = [{"id": 1, "name": "circle"}, {"id": 3, "name": "Square"}, {"id": 7, "name": "triangle"}]
KINDS = [category | {"isthing": thing} for category, thing in zip(CATEGORIES, (1, 1, 0))]


def write_detector(
    path: Path,
    *more: str,
    keep: tuple[str, ...] = ("args", "categories"),
    prefix: str = "",
    categories: list[dict] = CATEGORIES,
) -> Path:
    """A checkpoint with these entries beside the weights, of a model of 8 classes, ids 1, 3 and 7 named."""
    torch.manual_seed(0)
    args = parse("nowhere", "--num_classes", "8", *more)
    model, _, _ = build_model(args)
    for parameter in getattr(model, "detr", model).class_embed.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # so that the queries differ in class
    weights = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    entries = {"args": args, "categories": categories}
    save_checkpoint(path, {"model": weights} | {name: entries[name] for name in keep})
    return path


def write_panoptic(path: Path) -> Path:
    """A checkpoint of a model of masks with 12 queries, which finds things, ids 1 and 3, and stuff, 7, nothing else."""
    masks = ("--masks", "--hidden_dim", "128", "--nheads", "8", "--num_queries", "12")
    write_detector(path, *masks, "--dataset_file", "coco_panoptic", categories=KINDS)
    checkpoint = load_checkpoint(path)
    checkpoint["model"]["detr.query_embed.weight"] *= 20  # the queries look at different places
    with torch.no_grad():
        logits = load_detector(checkpoint, "cpu").model(torch.randn(8, 3, 64, 64))["pred_logits"].flatten(0, 1)
    weight, bias = (checkpoint["model"][f"detr.class_embed.{name}"] for name in ("weight", "bias"))
    strength = 2 / logits.std(dim=0)
    weight *= strength[:, None]  # they differ in class, and no class is most of them
    bias.sub_(logits.mean(dim=0)).mul_(strength)
    bias[[label for label in range(len(bias)) if label not in (1, 3, 7)]] -= 50
    save_checkpoint(path, checkpoint)
    return path


def write_picture(path: Path, size: tuple[int, int] = (60, 40), seed: int = 0, **how) -> Path:
    """A picture of random colours in large patches."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randint(0, 256, (4, 5, 3), generator=generator, dtype=torch.uint8).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(patches).resize(size, Image.Resampling.NEAREST).save(path, **how)
    return path


def write_pictures(folder: Path, sizes: Mapping[str, tuple[int, int]]) -> Path:
    """Pictures of these names and sizes (w, h), no two alike; returns their folder."""
    for seed, (name, size) in enumerate(sizes.items()):
        write_picture(folder / name, size, seed)
    return folder


def command(checkpoint: Path, out: Path, *common: str) -> Callable[..., int]:
    """`predict.py` as a function of the images and flags, of which later ones win; every detection is let through."""

    def call(inputs: object, *flags: object) -> int:
        own = ["--out", out, "--threshold", "0", "--device", "cpu", *common]
        return predict.run([str(part) for part in (checkpoint, inputs, *own, *flags)])

    return call
