"""A checkpoint → the part of it that inference needs, small enough to hand out.

python -m tools.ship RUN/checkpoint_best.pth weights/NAME.pth
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from models.load import load_detector
from util.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from util.errors import one_sentence

KEPT = ("epoch", "best_ap", "categories", "versions")
# Settings that say where and how a run was done, on a machine that is not the reader's, and not what came out of it.
LEFT_OUT = frozenset(
    "coco_path coco_panoptic_path train_ann train_images val_ann val_images train_panoptic val_panoptic output_dir "
    "resume init_from frozen_weights device num_workers print_freq tensorboard preflight given world_size dist_url "
    "distributed rank gpu dist_backend eval start_epoch".split()
)


def ship(checkpoint_path: str | os.PathLike[str], out: Path) -> tuple[int, str]:
    """Write the weights of a checkpoint in float32, with the settings, classes and versions they were made with.

    What is written loads by `models.load.load_detector`, which is tried first. The optimizer and all else that only
    serves to go on training stay out, and so do the settings in `LEFT_OUT`.

    Args:
        checkpoint_path: a file, or an http(s) address.
        out: the file to write, whole or not at all.

    Returns:
        Its size in bytes, and its SHA-256 in hexadecimal digits.

    Raises:
        CheckpointError: the checkpoint cannot be read, or no detector can be built from it.
        ValueError: `out` is the checkpoint itself.
        OSError: `out` cannot be written.
    """
    source = os.fspath(checkpoint_path)
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise ValueError(f"{out} is the checkpoint itself, which training may still need: name another file to write")
    shipped = stripped(load_checkpoint(source))
    load_detector(shipped, "cpu")
    save_checkpoint(out, shipped)
    content = out.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()


def stripped(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What `ship` writes of a checkpoint; an entry that is not there stays away."""
    shipped = {name: checkpoint[name] for name in KEPT if name in checkpoint}
    if isinstance(checkpoint.get("model"), Mapping):
        shipped["model"] = {name: _plain_tensor(value) for name, value in checkpoint["model"].items()}
    if checkpoint.get("args"):
        shipped["args"] = {name: value for name, value in checkpoint["args"].items() if name not in LEFT_OUT}
    return shipped


def _plain_tensor(value: Tensor) -> Tensor:
    """In float32 and in order, with no more memory behind it than it shows."""
    return (value.float() if value.is_floating_point() else value).contiguous().clone()


def run(argv: list[str] | None = None) -> int:
    """The command; the exit code is 1 where something cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a checkpoint's file or address")
    parser.add_argument("out", type=Path, metavar="OUT.pth", help="file to write")
    options = parser.parse_args(argv)
    try:
        size, digest = ship(options.checkpoint, options.out)
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {one_sentence(error)}", file=sys.stderr)
        return 1
    print(f"wrote {options.out}: {size:,} bytes, sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(run())
