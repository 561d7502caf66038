"""Reading a run's `log.txt`: its records, and the numbers of a field over the epochs."""

import json
import math
import os
from pathlib import Path
from typing import Any

from util.coco_names import COCO_METRICS
from util.logging import get_logger
from util.text import printable

Log = list[dict[str, Any]]
PathLike = str | os.PathLike[str]

# Fields that are one of several numbers in an entry of the log → that entry, and the index or key of the number in it:
# COCO's 12 numbers for boxes and masks, panoptic quality. The published name mAP means AP50.
EVALUATED = {
    "AP": ("coco_eval_bbox", list(COCO_METRICS).index("AP")),
    "mAP": ("coco_eval_bbox", list(COCO_METRICS).index("AP50")),
    "mask_AP": ("coco_eval_masks", list(COCO_METRICS).index("AP")),
    "PQ": ("PQ_all", "pq"),
}
COCO_PLACES = {name: place for place, name in enumerate(COCO_METRICS)}
MAX_CURVES = 24  # of one field
LARGEST = 1e300  # matplotlib's ticks overflow beyond


def read_log(path: PathLike) -> Log:
    """The records of a log, one per epoch, in the order of the epochs.

    If a resumed run repeated an epoch, the later record counts. Lines truncated by an interruption are left out with a
    warning.

    Raises:
        ValueError: the file does not exist or has no readable line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no log {path}: pass the --output_dir of a run that has finished its first epoch")
    records: dict[float, dict[str, Any]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            record = json.loads(line)
            epoch = _finite(record.get("epoch"))
        except (ValueError, RecursionError, AttributeError):
            if line.strip():
                get_logger().warning(f"line {number} of {path} is not a JSON object: left out")
            continue
        records[len(records) if epoch is None else epoch] = record
    if not records:
        raise ValueError(f"log {path} has no records yet: a run writes its first one at the end of its first epoch")
    return [records[epoch] for epoch in sorted(records)]


def curves_of(run: Log, split: str, field: str, path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Name → epochs and values of each number that the field holds; the name is empty if it holds a single one.

    -1, COCO's value for "no ground truth", is left out of its numbers, and so is what is not finite.
    """
    entry, place = EVALUATED.get(field, (field, None))
    if place is not None and split == "train":
        return {}
    is_evaluated = place is not None or entry.startswith("coco_eval")
    curves: dict[str, tuple[list[float], list[float]]] = {}
    odd = []  # (epoch, value) of the records with something else than numbers
    for index, record in enumerate(run):
        value, epoch = record.get(f"{split}_{entry}"), _finite(record.get("epoch"))
        epoch = index if epoch is None else epoch
        numbers, is_odd = _numbers(value, entry)
        if place is not None:
            name = next((name for name, number in COCO_PLACES.items() if number == place), f".{place}")
            is_odd = value is not None and name not in numbers
            numbers = {"": numbers[name]} if name in numbers else {}
        if is_odd:
            odd.append((epoch, value))
        for name, number in numbers.items():
            if math.isfinite(number) and not (number == -1 and is_evaluated):
                epochs, values = curves.setdefault(name, ([], []))
                epochs.append(epoch)
                values.append(number)
    if odd:
        epoch, value = odd[0]
        get_logger().warning(
            f"{split}_{printable(entry, 60)} in {path} is no number in {len(odd)} of {len(run)} records, first in "
            f"epoch {epoch:g}: {printable(repr(value), 60)}. These are left out of the picture"
        )
    if len(curves) > MAX_CURVES:
        get_logger().warning(
            f"{split}_{printable(entry, 60)} in {path} holds {len(curves)} numbers: the first {MAX_CURVES} are drawn"
        )
    return dict(list(curves.items())[:MAX_CURVES])


def _numbers(value: Any, entry: str) -> tuple[dict[str, float], bool]:
    """Name → each number in a value of the log, and whether it holds anything else.

    The name of a lone number is empty; others are named by their place, those of an evaluation as in COCO's summary.
    """
    if value is None:
        return {}, False
    parts: list[tuple[str, Any]] = [("", value)]
    numbers: dict[str, float] = {}
    is_odd = False
    for name, part in parts:  # which grows
        number = _number(part)
        if number is not None:
            numbers[name] = number
        elif isinstance(part, dict):
            parts += [(f"{name}.{printable(key, 20)}", inner) for key, inner in list(part.items())[: MAX_CURVES + 1]]
        elif isinstance(part, list):
            named = list(COCO_PLACES) if name == "" and entry.startswith("coco_eval") else []
            for index, inner in enumerate(part[: MAX_CURVES + 1]):
                parts.append((named[index] if index < len(named) else f"{name}[{index}]", inner))
        else:
            is_odd = is_odd or part is not None
        if len(numbers) > MAX_CURVES:
            break
    return numbers, is_odd or not numbers


def _number(value: Any) -> float | None:
    """A number of the log as a float, infinity if it is too large to be drawn; None for anything else."""
    if not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < LARGEST or value != value else math.inf


def _finite(value: Any) -> float | None:
    number = _number(value)
    return value if number is not None and math.isfinite(number) else None
