"""What `predict.py` says when it finds next to nothing: the best score, and which threshold to pass."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from util.files import is_number
from util.loading.json_text import read_json
from util.settings import BEST
from util.text import printable

FEW = 0.1  # share of the images with objects, below which the threshold is worth a word
MANY = 10  # images from which that share is looked at
LADDER = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)  # thresholds to name
F1 = Path("eval", "f1.json")  # below a run's output folder, see `evaluation.report`


def on_threshold(
    records: Sequence[Mapping[str, Any]],
    threshold: float | str,
    checkpoint: str | os.PathLike[str],
    *,
    has_best: bool = False,
) -> str | None:
    """A sentence if no image, or hardly one, has an object; None otherwise.

    Args:
        records: for each image its `name`, its `results`, and `best_score` of all queries.
        threshold: the minimum score, or "best".
        checkpoint: where the model comes from; the best threshold of its training is looked up beside it.
        has_best: the checkpoint holds the thresholds of its classes.
    """
    empty = [record for record in records if not record["results"]]
    with_objects = len(records) - len(empty)
    if not empty or (with_objects and (len(records) < MANY or with_objects >= FEW * len(records))):
        return None
    best = max(empty, key=lambda record: record["best_score"])
    own = threshold == BEST
    if best["best_score"] <= 0 or not (own or best["best_score"] < threshold):
        return None
    others = " of the others" * bool(with_objects)
    found = f"only {with_objects} of {len(records)} images have" if with_objects else "no image has"
    lower = next((step for step in LADDER if step <= 0.8 * best["best_score"]), None)
    shows = f"pass --threshold {lower:g} to see what there is" if lower else ""
    wanted = "that reaches the threshold of its class" if own else f"with a score of {threshold:g} or more"
    advice = [shows] * bool(shows) + ([] if own else [_best_f1(checkpoint, has_best)])
    return (
        f"{found} an object {wanted}; the best score{others} is {best['best_score']:.2g} ({printable(best['name'])})"
        f"{': ' if advice else ''}{'; '.join(advice)}"
    )


def _best_f1(checkpoint: str | os.PathLike[str], has_best: bool) -> str:
    path = Path(checkpoint).parent / F1
    try:
        best = read_json(path)["overall"]["best"]["threshold"]
    except (OSError, ValueError, LookupError, TypeError):
        best = None
    own = f"--threshold {BEST} takes each class's own from the checkpoint"
    if is_number(best) and 0 <= best <= 1:
        found = f"the best F1 of its training was at --threshold {best:g} ({printable(path)})"
        return f"{found}, and {own}" if has_best else found
    if has_best:
        return own
    return f"training writes the threshold with the best F1 to {F1.as_posix()} in its output folder"
