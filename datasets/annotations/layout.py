"""Finding a data set's files from the command line: one flag per part, else the published folder layout."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import NamedTuple

from datasets.annotations.other_layouts import describe


class Part(NamedTuple):
    """One part of a data set; `{}` stands for the split, "train" or "val"."""

    flag: str  # the flag for this part only, without --
    layout: str  # path below the root
    is_folder: bool
    roots: tuple[str, ...] = ("coco_path",)  # flags for the root; the first one given is used


def locate(image_set: str, args: Namespace, parts: Sequence[Part]) -> list[Path]:
    """The path of each part, in order.

    Raises:
        ValueError: unknown split, or neither a part's flag nor its root is given.
        FileNotFoundError: the file or folder does not exist; the message names the flag to correct.
    """
    if image_set not in ("train", "val"):
        raise ValueError(f"unknown image set {image_set!r}: use 'train' or 'val'")
    found = []
    for part in parts:
        flag, layout = part.flag.format(image_set), part.layout.format(image_set)
        named = getattr(args, flag, None)
        root_flag = next((root for root in part.roots if getattr(args, root, None)), None)
        if not named and not root_flag:
            flags = [f"--{each.flag.format(image_set)}" for each in reversed(parts)]
            all_parts = f"{', '.join(flags[:-1])} and {flags[-1]}"
            raise ValueError(f"no {image_set} data: pass --{part.roots[0]}, or {all_parts}")
        path = Path(named) if named else Path(getattr(args, root_flag)) / layout
        if not (path.is_dir() if part.is_folder else path.is_file()):
            kind = "folder" if part.is_folder else "file"
            source = f"--{flag}" if named else f"--{root_flag}"
            remedy = "" if named else f"; it must contain {layout}, or pass the {kind} with --{flag}"
            hint = describe(Path(named or getattr(args, root_flag)), image_set)
            raise FileNotFoundError(f"{source}: there is no {kind} {path}{remedy}{hint and f'; {hint}'}")
        found.append(path)
    return found


def check_not_empty(dataset: Sized, image_set: str, ann_file: Path, flag: str | None = None) -> None:
    """Raise ValueError if the data set has no images, with the part of the data that it is.

    Args:
        flag: that names the data, with what it takes; None: the flag of the annotation file.
    """
    if len(dataset) == 0:
        raise ValueError(
            f"the {image_set} data has no images: {ann_file} lists none under `images`; pass another "
            f"{flag or f'file with --{image_set}_ann'}"
        )
