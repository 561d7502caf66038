"""A training of seconds for the tools that interrupt trainings, and the comparison of two such runs to the bit."""

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
# Of a checkpoint, what may differ between an interrupted run and an undisturbed one: how it was called.
CALL = ("args",)


def fresh_folder(out: Path, tool: str) -> None:
    """An empty folder `out` for the tool of that name; what the tool left there before goes.

    Raises:
        FileExistsError: the folder holds something else.
    """
    mark = out / f".{tool}"
    if mark.exists():
        shutil.rmtree(out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} holds something other than a run of {tool}: name another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    mark.touch()


def tiny_run(out: Path, *more: str, train: int = 8, val: int = 2) -> list[str]:
    """The command line, `--output_dir` excepted, of a training on pictures of 64 pixels drawn to `out`/data.

    Dropout stays at its default and sizes vary, so that a generator that does not go on where it was is noticed.
    """
    write_shapes(out / "data", train=train, val=val, size=64)
    return [*MODEL, "--coco_path", str(out / "data"), *more]


def differences(folder: Path, reference: Path) -> list[str]:
    """What of a finished run is not, to the bit, that of the undisturbed one: sentences, none if all is equal.

    Compared are the names of all files, each checkpoint entry by entry, and log and evaluation byte by byte. Times and
    pictures are left out.
    """
    files, expected = ({str(path.relative_to(root)) for path in _files(root)} for root in (folder, reference))
    found = [f"{name} is missing" for name in sorted(expected - files)]
    found += [f"{name} was left behind" for name in sorted(files - expected)]
    for name in sorted(files & expected):
        one, other = folder / name, reference / name
        if one.suffix == ".pth":
            found += [f"{name}: {entry} differs" for entry in _differing(load_checkpoint(one), load_checkpoint(other))]
        elif one.read_bytes() != other.read_bytes():
            found.append(f"{name} differs")
    return found


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file() and path.suffix != ".png")


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [key for key in sorted({*one, *other} - {*CALL}) if not same(one.get(key), other.get(key))]


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, tensors included, all the way down."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other
