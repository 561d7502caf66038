"""Start a new run from another run's weights: classes are matched by name, queries added or removed.

Shapes: `C` classes, `Q` object queries, `D` transformer width. Row c of the class head is the class of id c; its last
row, C, is "no object".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.classes import plain_name
from util.checkpoint import load_weights
from util.coco_names import COCO_NAMES, COCO_NUM_CLASSES
from util.errors import CheckpointError
from util.loading.checkpoint_entries import check_entries, model_of
from util.text import escape

HEAD = ("class_embed.weight", "class_embed.bias")  # [C + 1, D], [C + 1]
QUERIES = "query_embed.weight"  # [Q, D]
COUNTERS = "num_batches_tracked"
SHOWN = 8  # names listed per line of the report


@dataclass
class InitReport:
    """What was loaded from a checkpoint; `str()` gives a few lines for the user.

    Attributes:
        source: path or address of the checkpoint.
        loaded: parts of the model that have the checkpoint's values.
        new: parts of the model that keep their initial values.
        left_out: parts of the checkpoint that were not used.
        notes: sentences about assumptions.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = {"loaded": self.loaded, "new": self.new, "left out": self.left_out}
        lines = [f"  {title}: {'; '.join(entries) or 'nothing'}" for title, entries in parts.items()]
        lines = [f"fresh start from the weights of {self.source}", *lines, *(f"  {n}" for n in self.notes)]
        return "\n".join(map(escape, lines))


def init_weights(
    model: nn.Module, checkpoint: Mapping[str, Any], source: str, categories: Sequence[Mapping[str, Any]]
) -> InitReport:
    """Load the weights of `checkpoint` into `model`, whose classes and number of queries may differ.

    If the classes are the same, or equally many with names unknown on one side, the whole class head is loaded.
    Otherwise the rows of classes with the same name, whatever their ids, and of "no object" are loaded; the other rows
    keep their initial values. Names are compared as by `training.classes`. Object queries are loaded up to the smaller
    number; additional ones keep their initial values, drawn from N(0, 1).

    Args:
        model: a newly built `DETR`, or a `DETRsegm` for weights of one.
        checkpoint: as `util.checkpoint.load_checkpoint` returns it; only `model` and `categories` are read. Without
            `categories`, weights of 91 classes are assumed to be COCO's.
        source: the checkpoint's path or address, for messages.
        categories: {"id", "name"} of the model's classes; empty if unknown.

    Raises:
        CheckpointError: the checkpoint has no such model, or differs in more than classes and queries; the message
            lists the names that do not match. The model is unchanged.
    """
    state = model_of(checkpoint, source)
    check_entries({"categories": checkpoint.get("categories")}, source)
    own = model.state_dict()
    if any(name.startswith("detr.") for name in state) and not any(name.startswith("detr.") for name in own):
        raise CheckpointError(
            f"{source} holds a model with masks (its names begin with `detr.`), but this model predicts boxes only: "
            "start from a checkpoint that was trained without --masks"
        )
    report = InitReport(source)
    merged = dict(state)
    inside = "detr." if any(name.startswith("detr.") for name in own) else ""
    head, queries = [inside + name for name in HEAD], inside + QUERIES
    if _same_but_rows(state, own, head):
        counts = (len(tensors[head[0]]) - 1 for tensors in (state, own))
        rows = _match_classes(*counts, checkpoint, categories, report)
        merged |= {name: _place_rows(own[name], state[name], rows) for name in head}
    if _same_but_rows(state, own, [queries]):
        kept = min(len(state[queries]), len(own[queries]))
        merged[queries] = _place_rows(own[queries], state[queries], {row: row for row in range(kept)})
        _report_queries(len(state[queries]), len(own[queries]), report)
    load_weights(model, merged, source)

    unchanged = [name.removeprefix(inside) for name in state if name in own and name not in (*head, queries)]
    report.loaded[:0] = _count_parts(unchanged)
    counters = [sum(name not in other for name in one) for one, other in ((own, state), (state, own))]
    for entries, count in zip((report.new, report.left_out), counters):
        if count:
            entries.append(f"{count} {COUNTERS}")
    others = [str(key) for key in checkpoint if key not in ("model", "categories")]
    if others:
        report.left_out.append(f"{_some(others)} of the earlier run")
    return report


def _same_but_rows(state: Mapping[str, Tensor], own: Mapping[str, Tensor], names: Sequence[str]) -> bool:
    """True if the tensors differ at most in their first dimension, which must be the same for all of one model.

    `load_weights` reports all other differences.
    """
    if not all(name in state and name in own and state[name].dim() == own[name].dim() for name in names):
        return False
    theirs = [state[name] for name in names]
    lengths = {len(value) for value in theirs}
    usable = all(v.is_floating_point() and v.layout == torch.strided and not v.is_meta for v in theirs)
    same_width = all(state[name].shape[1:] == own[name].shape[1:] for name in names)
    return usable and same_width and len(lengths) == 1 and 0 not in lengths


def _match_classes(
    old_end: int,
    new_end: int,
    checkpoint: Mapping[str, Any],
    categories: Sequence[Mapping[str, Any]],
    report: InitReport,
) -> dict[int, int]:
    """Row of the new class head → row of the old one that is loaded into it; adds the names to the report.

    `old_end` and `new_end` are the rows of "no object".
    """
    new = _names_below(new_end, categories)
    old = _names_in(checkpoint, old_end, report)
    known = [{number: plain_name(name) for number, name in names.items()} for names in (old, new)]
    if old_end == new_end and (known[0] == known[1] or not old or not new):
        report.loaded.append(f"class_embed (all {new_end} classes)")
        if not (old and new):
            report.notes.append(
                "The class names are not known on both sides: the classes are assumed to be the same, in the same order"
            )
        return {row: row for row in range(new_end + 1)}

    rows = {new_end: old_end}
    if old and new:
        first_with = {name: number for number, name in reversed(known[0].items())}
        for number, name in known[1].items():
            same_id = known[0].get(number) == name  # matters only if a name is used twice
            if name in first_with:
                rows[number] = number if same_id else first_with[name]
    else:
        report.notes.append(
            f"The class names are not known on both sides, and {old_end} classes became {new_end}: all rows of the "
            "class head are new, except no object"
        )
    kept = [new[row] for row in rows if row != new_end]
    report.loaded.append(f"class_embed ({_count_classes(kept)} and no object)" if kept else "class_embed (no object)")
    _report_rows(report.new, [row for row in range(new_end) if row not in rows], new)
    _report_rows(report.left_out, [row for row in range(old_end) if row not in rows.values()], old)
    return rows


def _names_in(checkpoint: Mapping[str, Any], count: int, report: InitReport) -> dict[int, str]:
    """Id → name of the checkpoint's classes, by ascending id; empty if unknown."""
    categories = checkpoint.get("categories")
    if categories is None and count == COCO_NUM_CLASSES:
        report.notes.append("The checkpoint does not name its 91 classes: they are assumed to be COCO's")
        return dict(COCO_NAMES)
    return _names_below(count, categories or ())


def _names_below(count: int, categories: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Id → name of the categories with a row, by ascending id; an unused category may be beyond the last row."""
    names = {category["id"]: category["name"] for category in categories if category["id"] < count}
    return dict(sorted(names.items()))


def _place_rows(fresh: Tensor, loaded: Tensor, rows: Mapping[int, int]) -> Tensor:
    """A copy of `fresh` in which row k is row rows[k] of `loaded`, for every key k of `rows`."""
    placed = fresh.clone()
    placed[list(rows)] = loaded[list(rows.values())].to(placed)
    return placed


def _report_queries(old: int, new: int, report: InitReport) -> None:
    report.loaded.append(f"query_embed ({_count_queries(min(old, new))})")
    if new > old:
        report.new.append(f"query_embed ({_count_queries(new - old)})")
    if old > new:
        report.left_out.append(f"query_embed (the last {old - new} of {_count_queries(old)})")


def _report_rows(entries: list[str], rows: Sequence[int], names: Mapping[int, str]) -> None:
    named = [names[row] for row in rows if row in names]
    if named:
        entries.append(f"class_embed ({_count_classes(named)})")
    unnamed = len(rows) - len(named)
    if unnamed:
        entries.append(f"class_embed ({unnamed} row{'s' * (unnamed > 1)} without a name)")


def _count_parts(names: Iterable[str]) -> list[str]:
    counts = Counter(name.split(".")[0] for name in names)
    return [f"{part} ({count} tensor{'s' * (count > 1)})" for part, count in counts.items()]


def _count_classes(names: Sequence[str]) -> str:
    return f"{len(names)} class{'es' * (len(names) > 1)}: {_some(names)}"


def _count_queries(count: int) -> str:
    return "1 query" if count == 1 else f"{count} queries"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
