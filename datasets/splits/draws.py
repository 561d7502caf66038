"""What each group of pictures is known by: its first name in natural order, and the draw of that name."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from datasets.splits.near_duplicates import name_without_export
from datasets.splits.stable_numbers import stable_number

_DIGITS = re.compile(r"([0-9]+)")


def natural_order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A key to sort names by: `clip_2` before `clip_10`, and names that differ only in leading zeros apart."""
    parts = _DIGITS.split(name_without_export(name))
    return [
        (1, len(part.lstrip("0")), part.lstrip("0")) if i % 2 else (0, 0, part) for i, part in enumerate(parts)
    ], name


def units_of(names: Sequence[str], groups: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The units that are put on one side as a whole: groups of pictures, and single pictures.

    Args:
        names: of the pictures.
        groups: indices of those that belong together.

    Returns:
        (the unit of each picture, int64 [n]; the draw of each unit, float64 [U]). Units are in the natural order of
        their first names, whose draws they have, so that pictures added behind it change nothing.
    """
    order = sorted(range(len(names)), key=lambda index: natural_order(names[index]))
    group_of = {index: number for number, group in enumerate(groups) for index in group}
    unit_of, draws = np.empty(len(names), dtype=np.int64), []
    seen: dict[int, int] = {}
    for index in order:
        group = group_of.get(index)
        if group is not None and group in seen:
            unit_of[index] = seen[group]
            continue
        unit_of[index] = len(draws)
        if group is not None:
            seen[group] = len(draws)
        draws.append(stable_number(name_without_export(names[index])))
    return unit_of, np.array(draws, dtype=np.float64)
