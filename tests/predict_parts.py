"""What the tests of prediction share: a tiny detector with random weights in a checkpoint of its own."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from runs import parse

from models import build_model
from util.checkpoint import save_checkpoint

CATEGORIES = [{"id": 1, "name": "circle"}, {"id": 3, "name": "Square"}, {"id": 7, "name": "triangle"}]


def write_detector(path: Path, *more: str, keep: tuple[str, ...] = ("args", "categories"), prefix: str = "") -> Path:
    """A checkpoint with these entries beside the weights, of a model of 8 classes, ids 1, 3 and 7 named."""
    torch.manual_seed(0)
    args = parse("nowhere", "--num_classes", "8", *more)
    model, _, _ = build_model(args)
    for parameter in model.class_embed.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # so that the queries differ in class
    weights = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    entries = {"args": args, "categories": CATEGORIES}
    save_checkpoint(path, {"model": weights} | {name: entries[name] for name in keep})
    return path


def write_picture(path: Path, size: tuple[int, int] = (60, 40), seed: int = 0, **how) -> Path:
    """A picture of random colours in large patches."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randint(0, 256, (4, 5, 3), generator=generator, dtype=torch.uint8).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(patches).resize(size, Image.Resampling.NEAREST).save(path, **how)
    return path
