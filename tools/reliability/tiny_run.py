"""A training run that takes seconds, for tools that interrupt it, and a bit-for-bit comparison of two such runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from datasets.shapes import write_shapes
from util.checkpoint import load_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = """
    --backbone tiny --backbone_weights none --trainable_layers 5 --backbone_norm gn
    --hidden_dim 16 --nheads 2 --dim_feedforward 32 --enc_layers 1 --dec_layers 2 --num_queries 6
    --train_sizes 48 64 --max_size 64 --val_size 64 --no_crop --device cpu --num_workers 0
""".split()
# Checkpoint entries that may differ between an interrupted run and an undisturbed one: the command line.
IGNORED = {"args"}


def fresh_folder(out: Path, tool: str) -> None:
    """Create an empty folder `out` for a tool; files of an earlier run of the same tool are deleted.

    Raises:
        FileExistsError: the folder holds other files.
    """
    mark = out / f".{tool}"
    if mark.exists():
        shutil.rmtree(out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} holds files that are not from {tool}: choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    mark.touch()


def tiny_run(out: Path, *more: str, train: int = 8, val: int = 2) -> list[str]:
    """The command line, without `--output_dir`, of a training run on images of 64 pixels drawn to `out`/data.

    Dropout is on and sizes vary, so that a random generator that is not restored changes the result.
    """
    write_shapes(out / "data", train=train, val=val, size=64)
    return [*MODEL, "--coco_path", str(out / "data"), *more]


def differences(folder: Path, reference: Path) -> list[str]:
    """How a finished run differs from the undisturbed one, as sentences; empty if both are equal bit for bit.

    File names are compared, checkpoints entry by entry, and all other files byte by byte, except pictures and the
    report, which tells the time and the command.
    """
    files, expected = ({str(path.relative_to(root)) for path in _files(root)} for root in (folder, reference))
    found = [f"{name} is missing" for name in sorted(expected - files)]
    found += [f"{name} should not exist" for name in sorted(files - expected)]
    for name in sorted(files & expected):
        one, other = folder / name, reference / name
        if one.suffix == ".pth":
            found += [f"{name}: {entry} differs" for entry in _differing(load_checkpoint(one), load_checkpoint(other))]
        elif one.read_bytes() != other.read_bytes():
            found.append(f"{name} differs")
    return found


def _files(root: Path) -> Iterator[Path]:
    files = (path for path in root.rglob("*") if path.is_file())
    return (path for path in files if path.suffix != ".png" and path.name not in ("report.html", "run.json"))


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [key for key in sorted({*one, *other} - IGNORED) if not same(one.get(key), other.get(key))]


def same(one: Any, other: Any) -> bool:
    """True if two nested structures are equal bit for bit, tensors included."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other
