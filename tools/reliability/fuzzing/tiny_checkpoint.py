"""An intact checkpoint of a training with the smallest of detectors, and its archive with other content."""

from __future__ import annotations

import io
import zipfile
from argparse import Namespace
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tools.reliability.fuzzing.annotations import CATEGORIES
from training.optim import build_optimizer
from util.arguments import get_args_parser


class TinyDetector(nn.Module):
    """The parts of a detector that loading checks, as small as possible."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.BatchNorm2d(2)
        self.input_proj = nn.Conv2d(2, 4, 1)
        self.query_embed = nn.Embedding(3, 4)
        self.class_embed = nn.Linear(4, 5)
        layers = {part: nn.ModuleDict({"layers": nn.ModuleList([_Layer()])}) for part in ("encoder", "decoder")}
        self.transformer = nn.ModuleDict(layers)


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(4, 4)


def settings(path: Path | str = "") -> Namespace:
    """The settings of a command line that resumes from `path`."""
    args = get_args_parser().parse_args(["--coco_path", "data", "--resume", str(path)])
    args.given = ()
    args.enc_layers = args.dec_layers = args.nheads = 1
    args.hidden_dim, args.dim_feedforward, args.num_queries = 4, 4, 3
    return args


def training(args: Namespace) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    """A model, its optimizer and its schedule."""
    model = TinyDetector()
    optimizer = build_optimizer(model, args)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, args.lr_drop)


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer, lr_scheduler: Any) -> None:
    """One step of training, without data."""
    sum(parameter.square().sum() for parameter in model.parameters()).backward()
    optimizer.step()
    lr_scheduler.step()


@cache
def checkpoint() -> dict[str, Any]:
    """An intact checkpoint of training."""
    torch.manual_seed(0)
    args = settings()
    model, optimizer, lr_scheduler = training(args)
    take_step(model, optimizer, lr_scheduler)
    return {
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": lr_scheduler.state_dict(),
        "epoch": 5,
        "step": 26,
        "args": vars(args),
        "categories": [{"id": category["id"], "name": category["name"]} for category in CATEGORIES],
        "best_ap": 0.25,
        "data": "0123abcd",
        "world_size": 1,
        "progress": {"step": 2, "meters": {"meters": {}, "progress": {}}, "train_stats": None},
        "record": {"epoch": 5, "train_loss": 1.5},
    }


def saved(content: Any, zipped: bool = True) -> bytes:
    """`content` as torch saves it."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@cache
def checkpoints() -> tuple[bytes, ...]:
    """The intact checkpoint in both formats of torch."""
    return tuple(saved(checkpoint(), zipped) for zipped in (True, False))


def repacked(content: bytes, change: Callable[[bytes], bytes], **entries: bytes) -> bytes:
    """An archive with a changed pickle, and further entries; all are stored without a timestamp."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(file, "w") as archive:
        for name in source.namelist():
            part = source.read(name)
            archive.writestr(zipfile.ZipInfo(name), change(part) if name.endswith("data.pkl") else part)
        for name, part in entries.items():
            archive.writestr(zipfile.ZipInfo(name), part)
    return file.getvalue()
