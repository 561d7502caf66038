"""What an exported file says of itself: the entry `detr` of its metadata, JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from util.errors import CheckpointError
from util.files import is_count
from util.loading.class_thresholds import is_thresholds

ENTRY = "detr"
_AGAIN = "export the checkpoint again with `python -m tools.export`, or pass the checkpoint itself"


@dataclass(frozen=True)
class About:
    """What is needed to use an exported detector as its checkpoint is used.

    Attributes:
        names: class id → name.
        size: short side of a resized image, in pixels.
        max_size: longest side of a resized image.
        things: the ids of things, for a panoptic model; None for any other.
        thresholds: the checkpoint's entry `thresholds`, see `util.loading.class_thresholds`; None if it has none.
    """

    names: dict[int, str]
    size: int
    max_size: int
    things: list[int] | None = None
    thresholds: dict[str, Any] | None = None

    @classmethod
    def read(cls, text: str | None, source: str) -> About:
        """From the text of the entry.

        Raises:
            CheckpointError: the file has no such entry, so `tools.export` did not write it, or it is damaged.
        """
        if not text:
            raise CheckpointError(
                f"{source} has no classes and sizes in its metadata, as it is of an earlier version or was not written "
                f"by tools.export: {_AGAIN}"
            )
        try:
            entry = json.loads(text)
            names = {int(number): name for number, name in entry["classes"].items()}
            about = cls(names, entry["size"], entry["max_size"], entry.get("things"), entry.get("thresholds"))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            about = None
        if about is None or not about._is_valid():
            raise CheckpointError(f"the metadata of {source} (`{ENTRY}`) are damaged: {_AGAIN}")
        return about

    def categories(self) -> list[dict[str, Any]]:
        """[{"id", "name"}], sorted by id; those of a panoptic model also have "isthing"."""
        things = self.things
        return [
            {"id": number, "name": self.names[number]} | ({} if things is None else {"isthing": int(number in things)})
            for number in sorted(self.names)
        ]

    def _is_valid(self) -> bool:
        return (
            all(number >= 0 and isinstance(name, str) for number, name in self.names.items())
            and all(is_count(side) and side > 0 for side in (self.size, self.max_size))
            and (self.things is None or isinstance(self.things, list) and all(map(is_count, self.things)))
            and (self.thresholds is None or is_thresholds(self.thresholds))
        )
