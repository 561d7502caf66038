"""The record of a split, `split.json` in a run's folder: which picture is on which side.

    {"val_share": 0.15, "val_groups": "near", "train": [names], "val": [names], "left_out": [names],
     "classes": {name: {"train": [images, objects], "val": [images, objects]}}}

Names are file names relative to the folder of the images. A checkpoint holds the same under `split`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from util.files import is_number
from util.text import printable

SPLIT = "split.json"
MAX_BYTES = 2**30


@dataclass(frozen=True)
class Split:
    """Which picture is on which side.

    Attributes:
        val_share: the share of the pictures that was asked for in validation.
        val_groups: "near" if near-duplicates were kept on one side, else "none".
        train, val: file names, in natural order.
        left_out: pictures in neither part: they are near-duplicates of pictures on both sides, or were added to a run
            whose validation pictures they repeat.
        classes: (images, objects) in "train" and "val" by the name of the class.
    """

    val_share: float
    val_groups: str
    train: list[str]
    val: list[str]
    left_out: list[str] = field(default_factory=list)
    classes: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    @cached_property
    def sides(self) -> dict[str, str]:
        """ "train", "val" or "left_out" by file name."""
        return {name: side for side in ("left_out", "train", "val") for name in getattr(self, side)}

    def plain(self) -> dict[str, Any]:
        """As it is saved."""
        return asdict(self)

    @classmethod
    def of(cls, entry: Any, source: str) -> Split:
        """The split in an entry of a file; ValueError, which names `source`, if it is none."""
        if not is_split(entry):
            raise ValueError(
                f"{printable(source)} is not the record of a split (val_share, val_groups, and the lists train and val "
                f"of file names): name the {SPLIT} of a run"
            )
        known = ("val_share", "val_groups", "train", "val", "left_out", "classes")
        return cls(**{name: entry[name] for name in known if entry.get(name) is not None})


def is_split(entry: Any) -> bool:
    """Whether an entry of a file has the form of a split's record."""
    if not isinstance(entry, Mapping):
        return False
    lists = [entry.get("train"), entry.get("val"), entry.get("left_out", [])]
    return (
        is_number(entry.get("val_share"))
        and 0 < entry["val_share"] < 1
        and entry.get("val_groups") in ("near", "none")
        and all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists)
        and isinstance(entry.get("classes", {}), dict)
    )


def read_split(path: str | Path) -> Split:
    """The split of an earlier run.

    Args:
        path: its record, or the folder of the run.

    Raises:
        FileNotFoundError, OSError: there is no file, or it cannot be read.
        ValueError: it is not the record of a split.
    """
    file = Path(path) / SPLIT if Path(path).is_dir() else Path(path)
    if not file.exists():
        raise FileNotFoundError(f"--val_split: there is no {printable(file)}: name the {SPLIT} of a run, or its folder")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{printable(file)} is not the record of a split: it has more than {MAX_BYTES:,} bytes")
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # not JSON, or not UTF-8
        entry = None
    return Split.of(entry, str(file))
