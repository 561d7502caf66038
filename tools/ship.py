"""Reduce a checkpoint to what inference needs, for distribution.

python -m tools.ship RUN/checkpoint_best.pth weights/NAME.pth
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from models.load import load_detector
from tools.command import run_tool, say, tool_parser
from util.checkpoint import load_checkpoint, save_checkpoint
from util.loading.checkpoint_entries import without_average

KEPT = ("epoch", "best_score", "best_ap", "categories", "thresholds", "versions")
# Settings that describe where and how a run was done, not its result.
DROPPED = frozenset(
    "data eval_part val_split coco_path coco_panoptic_path train_ann train_images val_ann val_images train_panoptic "
    "val_panoptic output_dir resume init_from frozen_weights device num_workers print_freq tensorboard preflight given "
    "world_size dist_url distributed rank gpu dist_backend eval start_epoch compile raw_weights save_thresholds".split()
)


def ship(checkpoint_path: str | os.PathLike[str], out: Path, *, raw_weights: bool = False) -> tuple[int, str]:
    """Write the weights of a checkpoint in float32, with their settings, classes, thresholds and versions.

    Where the checkpoint has a moving average of its weights (`main.py --ema`), the file holds the average alone.

    The file can be loaded by `models.load.load_detector`, which is checked first. The optimizer, everything else that
    only serves to resume training, and the settings in `DROPPED` are dropped.

    Args:
        checkpoint_path: a file, or an http(s) address.
        out: the file to write; it is written completely or not at all.
        raw_weights: leave the average out instead.

    Returns:
        The size in bytes and the SHA-256, in hexadecimal digits.

    Raises:
        CheckpointError: the checkpoint cannot be read, or no detector can be built from it.
        ValueError: `out` is the checkpoint itself.
        OSError: `out` cannot be written.
    """
    source = os.fspath(checkpoint_path)
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise ValueError(f"{out} is the checkpoint itself, which training may still need: choose another output file")
    loaded = load_checkpoint(source)
    shipped = stripped(without_average(loaded) if raw_weights else loaded)
    load_detector(shipped, "cpu")
    save_checkpoint(out, shipped)
    content = out.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()


def stripped(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a checkpoint that `ship` writes, as far as the checkpoint has them."""
    shipped = {name: checkpoint[name] for name in KEPT if name in checkpoint}
    weights = checkpoint.get("model_ema") or checkpoint.get("model")  # the average detects better, where there is one
    if isinstance(weights, Mapping):
        shipped["model"] = {name: _plain_tensor(value) for name, value in weights.items()}
    if checkpoint.get("args"):
        shipped["args"] = {name: value for name, value in checkpoint["args"].items() if name not in DROPPED}
    return shipped


def _plain_tensor(value: Tensor) -> Tensor:
    """A contiguous float32 copy that does not keep a larger storage alive."""
    return (value.float() if value.is_floating_point() else value).contiguous().clone()


def main(options: argparse.Namespace) -> None:
    """Write the file, and print its size and hash."""
    size, digest = ship(options.checkpoint, options.out, raw_weights=options.raw_weights)
    say(f"wrote {options.out}: {size:,} bytes, sha256 {digest}")


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("checkpoint", help="a file or an http(s) address")
    parser.add_argument("out", type=Path, metavar="OUT.pth", help="the file to write")
    parser.add_argument("--raw_weights", action="store_true", help="the weights themselves, not their moving average")
    return run_tool(parser, main, argv)


if __name__ == "__main__":
    sys.exit(run())
