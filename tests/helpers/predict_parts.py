"""A tiny detector with random weights, images, and the command, for the tests of prediction."""

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
    """Write a checkpoint with the entries `keep` besides the weights: 8 classes, of which ids 1, 3 and 7 have names."""
    torch.manual_seed(0)
    args = parse("nowhere", "--num_classes", "8", *more)
    model, _, _ = build_model(args)
    for parameter in getattr(model, "detr", model).class_embed.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # so that the queries predict different classes
    weights = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    entries = {"args": args, "categories": categories}
    save_checkpoint(path, {"model": weights} | {name: entries[name] for name in keep})
    return path


def write_panoptic(path: Path) -> Path:
    """Write a panoptic model with 12 queries that predicts only the things 1 and 3 and the stuff 7."""
    masks = ("--masks", "--hidden_dim", "128", "--nheads", "8", "--num_queries", "12")
    write_detector(path, *masks, "--dataset_file", "coco_panoptic", categories=KINDS)
    checkpoint = load_checkpoint(path)
    checkpoint["model"]["detr.query_embed.weight"] *= 20  # so that the queries attend to different places
    with torch.no_grad():
        logits = load_detector(checkpoint, "cpu").model(torch.randn(8, 3, 64, 64))["pred_logits"].flatten(0, 1)
    weight, bias = (checkpoint["model"][f"detr.class_embed.{name}"] for name in ("weight", "bias"))
    strength = 2 / logits.std(dim=0)
    weight *= strength[:, None]  # so that the classes differ and none dominates
    bias.sub_(logits.mean(dim=0)).mul_(strength)
    bias[[label for label in range(len(bias)) if label not in (1, 3, 7)]] -= 50
    save_checkpoint(path, checkpoint)
    return path


def write_picture(path: Path, size: tuple[int, int] = (60, 40), seed: int = 0, **how) -> Path:
    """Write an image of large patches in random colours."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randint(0, 256, (4, 5, 3), generator=generator, dtype=torch.uint8).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(patches).resize(size, Image.Resampling.NEAREST).save(path, **how)
    return path


def write_pictures(folder: Path, sizes: Mapping[str, tuple[int, int]]) -> Path:
    """Write different images of these names and sizes (w, h); returns their folder."""
    for seed, (name, size) in enumerate(sizes.items()):
        write_picture(folder / name, size, seed)
    return folder


def command(checkpoint: Path, out: Path, *common: str) -> Callable[..., int]:
    """`predict.py` as a function of images and flags; later flags win, and every detection is kept."""

    def call(inputs: object, *flags: object) -> int:
        own = ["--out", out, "--threshold", "0", "--device", "cpu", *common]
        return predict.run([str(part) for part in (checkpoint, inputs, *own, *flags)])

    return call
