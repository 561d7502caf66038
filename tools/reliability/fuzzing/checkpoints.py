"""Damaged checkpoints, and what `--resume` and `--init_from` do with them."""

from __future__ import annotations

import random
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tools.reliability.fuzzing.annotations import CATEGORIES
from tools.reliability.fuzzing.mutations import VALUES, mutate_bytes, mutate_tree
from tools.reliability.fuzzing.other_checkpoints import WRAPPERS, unfolding
from tools.reliability.fuzzing.tiny_checkpoint import (
    TinyDetector,
    checkpoint,
    checkpoints,
    repacked,
    saved,
    settings,
    take_step,
    training,
)
from training.follow import RESUME, follow_checkpoint
from training.init_weights import init_weights
from training.state import TrainingState
from util.arguments import check_args
from util.checkpoint import load_checkpoint, load_weights
from util.loading.checkpoint_entries import model_of
from util.logging import get_logger
from util.meters import MetricLogger


@cache
def tensors() -> tuple[torch.Tensor, ...]:
    """Tensors of every kind, and some that claim more than they hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested and quantised tensors are not for new programs
        return (
            torch.zeros(()),
            torch.zeros(0),
            torch.full((4, 5), torch.nan),
            torch.full((5, 4), torch.inf),
            torch.zeros(5, 4, dtype=torch.int64),
            torch.zeros(5, 4, dtype=torch.complex64),
            torch.zeros(5, 4).to_sparse(),
            torch.zeros(5, 4, device="meta"),
            torch.zeros(1).expand(10**12),
            torch.zeros(1).expand(10**7, 4),
            torch.zeros(2, 2, 2, 2, 2, 2),
            torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
            torch.quantize_per_tensor(torch.zeros(5, 4), 0.1, 0, torch.qint8),
        )


def make_checkpoint(rng: random.Random) -> bytes:
    """A damaged checkpoint, one of another program, or one that unfolds."""
    way = rng.random()
    if way < 0.2:
        return mutate_bytes(rng.choice(checkpoints()), checkpoints(), rng)
    if way < 0.35:
        return with_damaged_pickle(checkpoints()[0], rng)
    if way < 0.45:
        return rng.choice(WRAPPERS)(checkpoint()["model"], rng)
    if way < 0.55:
        return unfolding(checkpoint(), rng)
    return saved(mutate_tree(checkpoint(), rng, VALUES + tensors()))


def with_damaged_pickle(content: bytes, rng: random.Random) -> bytes:
    """A checkpoint with a valid archive and valid checksums, but damaged content."""
    return repacked(content, lambda part: mutate_bytes(part, [part], rng))


def read_checkpoint(path: Path) -> None:
    """Start from the weights (one case in three), or resume and take a step."""
    loaded = load_checkpoint(path)
    args = settings(path)
    if zlib.crc32(path.read_bytes()) % 3 == 0:
        get_logger().info(init_weights(TinyDetector(), loaded, str(path), CATEGORIES))
        return
    follow_checkpoint(args, loaded, str(path), RESUME)
    check_args(args)
    model, optimizer, lr_scheduler = training(args)
    load_weights(model, model_of(loaded, str(path)), str(path))
    state = TrainingState(args, model, optimizer, lr_scheduler, steps_per_epoch=4, data="0123abcd")
    state.load_state_dict(loaded)
    if state.position.meters is not None:
        MetricLogger().load_state_dict(state.position.meters)
    take_step(model, optimizer, lr_scheduler)


def make_archive(rng: random.Random) -> bytes:
    """An intact checkpoint in which bytes were lost or changed, as a disk or a broken copy does it."""
    data = bytearray(checkpoints()[0])
    way = rng.randrange(5)
    start, length = rng.randrange(len(data)), rng.choice((1, 1, 4, 64, 512))
    if way == 0:
        data[start] ^= 1 << rng.randrange(8)
    elif way == 1:
        data[start : start + length] = bytes(len(data[start : start + length]))
    elif way == 2:
        data[start : start + length] = rng.randbytes(len(data[start : start + length]))
    elif way == 3:
        del data[start:]
    else:
        other = rng.randrange(len(data))
        part = data[other : other + length]
        data[start : start + len(part)] = part
    return bytes(data)


def read_archive(path: Path) -> None:
    """Load a checkpoint; what is loaded must be what was saved."""
    if not _equal(load_checkpoint(path), checkpoint()):
        raise AssertionError("a damaged checkpoint was read, and holds something else")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and one == other
