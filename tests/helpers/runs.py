"""What the tests of the commands share: tiny drawn data and the flags of a model that trains on it in seconds."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import engine
from evaluation import pictures, report
from main import get_args_parser

TINY = """
    --backbone tiny --backbone_weights none --trainable_layers 5 --backbone_norm gn
    --hidden_dim 16 --nheads 2 --dim_feedforward 32 --enc_layers 1 --dec_layers 2 --num_queries 6
    --dropout 0 --train_sizes 64 --max_size 64 --val_size 64 --no_crop --device cpu --batch_size 4 --num_workers 0
""".split()


def flags(data: Path | str, *more: str) -> list[str]:
    """The command line of a tiny run on `data`; later flags win."""
    return [*TINY, "--coco_path", str(data), *more]


def parse(data: Path | str, *more: str) -> argparse.Namespace:
    """The same, parsed."""
    return argparse.ArgumentParser(parents=[get_args_parser()]).parse_args(flags(data, *more))


@contextmanager
def drawing() -> Iterator[None]:
    """Evaluations draw their pictures inside, as they do outside of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_evaluation", pictures.draw_evaluation)
        yield


def signal_at(monkeypatch: pytest.MonkeyPatch, batch: int, number: int) -> None:
    """Send this process a signal while it works on its `batch`-th batch, training and evaluation counted together."""
    seen = []
    check = engine.check_targets

    def count(*args):
        seen.append(None)
        if len(seen) == batch:
            os.kill(os.getpid(), number)
        return check(*args)

    monkeypatch.setattr(engine, "check_targets", count)
