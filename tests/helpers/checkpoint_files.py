"""Checkpoints for the tests: one as the published code writes it, one that would run code, and how one is refused."""

import argparse
import hashlib
import io
import os
import pathlib
from collections import OrderedDict

import pytest
import torch
from torch import nn

from util.checkpoint import CheckpointError, load_checkpoint


class Canary:
    """Makes a file when unpickled by a loader that runs what it reads."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def small_model():
    """Three layers with names of a detector's parts."""
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(input_proj=nn.Linear(3, 4), norm=nn.BatchNorm1d(4), class_embed=nn.Linear(4, 5)))


def published_checkpoint(model, **extra):
    """The published keys after one step, with a Namespace and a path as they are; `extra` comes beside them."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 200)
    args = argparse.Namespace(lr=1e-4, output_dir=pathlib.PosixPath("out/run"), betas=(0.9, 0.999), resume="")
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "lr_scheduler": scheduler.state_dict()}
    return {**states, "epoch": 7, "args": args, **extra}


def serve(folder, content, good_hash=True, name=None):
    """Save a checkpoint into the served folder under a name that ends in its hash or in another one, or as `name`; that
    name."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    digest = hashlib.sha256(buffer.getvalue() if good_hash else b"another file").hexdigest()[:8]
    name = name or f"detr-{digest}.pth"
    (folder / name).write_bytes(buffer.getvalue())
    return name


def refusal(path):
    """The one sentence with which loading refuses a file."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence and len(sentence) < 700
    return sentence
