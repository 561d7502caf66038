"""The tables of a comparison: settings that differ, scores, and classes, with the change from the first run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets.loader import same_data
from tools.comparing.runs import SCORES, Run
from tools.ship import DROPPED
from util.settings import SETTINGS
from util.text import column_width, fit, printable

# Settings that say where and how a run is carried out, not what it computes.
PLACES = frozenset(
    "output_dir overwrite resume start_epoch raw_weights eval num_workers print_freq tensorboard preflight dist_url "
    "given rank gpu dist_backend distributed save_thresholds checkpoint_every compile".split()
)
UNKNOWN = "–"
AT_THE_END = ("train loss", "learning rate")  # shown of the last epoch, not of the best
FIRST_WIDTH, WIDTH = 26, 24  # most terminal columns of the first column and of each run
CLASSES = 40  # that a terminal shows


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell names the row, the others belong to the runs."""

    title: str
    first: str
    rows: list[list[str]]
    note: str = ""


def settings_table(runs: Sequence[Run]) -> Table:
    """The settings, and the facts in the checkpoints, that differ between runs whose settings are known.

    A setting that a run did not save, since it is older, has its default; one that `tools.ship` leaves out is unknown.
    """
    known = [run.settings for run in runs if run.settings]
    names = [n for n in SETTINGS if any(n in s for s in known)]
    names += sorted({str(n) for settings in known for n in settings} - set(names))
    rows, assumed = [], False
    for name in (name for name in names if name not in PLACES):
        values = [_setting(run.settings, name) for run in runs]
        if len({_comparable(value) for value in values if value is not UNKNOWN}) < 2:
            continue
        defaults = [value is not UNKNOWN and name not in run.settings for value, run in zip(values, runs)]
        assumed = assumed or any(defaults)
        rows.append([name, *(_shown(value) + "*" * default for value, default in zip(values, defaults))])
    for name, of in FACTS.items():
        values = [of(run) for run in runs]
        if len({value for value in values if value is not None}) > 1:
            rows.append([name, *(UNKNOWN if value is None else printable(value, 60) for value in values)])
    return Table("settings that differ", "setting", rows, "*: not saved by this run, the default" if assumed else "")


def _setting(settings: dict[str, Any], name: str) -> Any:
    if name in settings:
        return settings[name]
    return SETTINGS[name].default if settings and name in SETTINGS and name not in DROPPED else UNKNOWN


def _comparable(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_comparable, value))
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 2**53:
        return printable(value, 1000)
    return f"{value:.12g}"  # 1 and 1.0 are the same setting


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return printable(" ".join(_shown(one) for one in value[:50]), 60)
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable("none" if value in (None, "") else value, 60)


def _classes_of(run: Run) -> str | None:
    categories = run.entries.get("categories")
    return f"{len(categories)}: {', '.join(category['name'] for category in categories)}" if categories else None


# What a checkpoint says besides its settings → its value in a run, None if unknown
FACTS = {
    "classes": _classes_of,
    "fingerprint of the data": lambda run: run.entries.get("data"),
    "evaluated images": lambda run: run.evaluated and f"{run.evaluated[0]:,} ({run.evaluated[1]})",
    "processes": lambda run: run.entries.get("world_size"),
    "torch": lambda run: run.entries.get("versions", {}).get("torch"),
    "device type": lambda run: run.entries.get("versions", {}).get("device"),
}


def scores_table(runs: Sequence[Run]) -> Table:
    """The scores of each run's best evaluation, and the losses; with the change from the first run."""
    rows = [["best epoch", *(_epoch(run.best_epoch) for run in runs)]]
    for name in SCORES:
        at = [run.last_epoch if name in AT_THE_END else run.best_epoch for run in runs]
        values = [run.curves.get(name, {}).get(epoch) for run, epoch in zip(runs, at)]
        if any(value is not None for value in values):
            digits = 6 if name == "learning rate" else 4 if "loss" in name else 3
            rows.append([f"{name}, last epoch" if name in AT_THE_END else name, *with_changes(values, digits)])
    by = {run.deciding for run in runs if run.deciding}
    note = f"of the evaluation with the best {' or '.join(sorted(by))}; then the change from the first run"
    if not _same_images(runs):
        note += "; the runs were evaluated on different data, so their scores do not tell which one is better"
    return Table("scores", "score", rows if by else [], note if by else "no run was evaluated yet")


def _same_images(runs: Sequence[Run]) -> bool:
    """Whether all runs may have been evaluated on the same data."""
    known = [run.evaluated for run in runs if run.evaluated]
    return all(count == known[0][0] and same_data(text, known[0][1]) for count, text in known)


def classes_table(runs: Sequence[Run], score: str) -> Table:
    """`score`, one of `class_scores`, of each class; those that lost most from the first to the last run come first."""
    rows = [[name, *with_changes(values, 3)] for name, values in class_values(runs, score)]
    epochs = ", ".join(_epoch(run.classes_epoch) if _has(run, score) else UNKNOWN for run in runs)
    what = "best F1 at IoU 0.5" if score == "F1" else "AP at the last evaluation"
    return Table(f"{score} of each class", "class", rows, f"{what}; epochs of the runs: {epochs}" if rows else "")


def class_scores(runs: Sequence[Run]) -> list[str]:
    """By what the classes are compared: AP, and the best F1 in the checkpoints if it is known of a run without AP."""
    if not any(_has(run, "F1") and not _has(run, "AP") for run in runs):
        return ["AP"]
    return ["AP", "F1"] if any(_has(run, "AP") for run in runs) else ["F1"]


def _has(run: Run, score: str) -> bool:
    return any(score in row for row in run.classes.values())


def class_values(runs: Sequence[Run], score: str) -> list[tuple[str, list[float | None]]]:
    """(name, value in each run) of each class; by the change from the first to the last run that have it."""
    names = {key: row["name"] for run in reversed(runs) for key, row in run.classes.items() if score in row}
    found = [(name, [run.classes.get(key, {}).get(score) for run in runs]) for key, name in names.items()]
    return sorted(found, key=lambda one: (_change(one[1]), plain(one[0])))


def plain(name: str) -> str:
    """By which names are sorted."""
    return name.casefold()


def _change(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return known[-1] - known[0] if values[0] is not None else 0.0


def with_changes(values: Sequence[float | None], digits: int) -> list[str]:
    """Each value, and behind those after the first their difference from it."""
    first, cells = values[0], []
    for place, value in enumerate(values):
        if value is None:
            cells.append(UNKNOWN)
        elif place == 0 or first is None:
            cells.append(f"{value:.{digits}f}")
        else:
            change = round(value, digits) - round(first, digits)
            cells.append(f"{value:.{digits}f} {change:+.{digits}f}".replace(f"-{0:.{digits}f}", f"+{0:.{digits}f}"))
    return cells


def _epoch(epoch: float | None) -> str:
    return UNKNOWN if epoch is None or epoch < 0 else f"{epoch:g}"


def text(table: Table, names: Sequence[str], width: int) -> str:
    """A table for a terminal of `width` columns; what does not fit beside each other comes below.

    Args:
        names: of the runs.
    """
    rows = table.rows
    left_out = len(rows) - CLASSES if table.first == "class" and len(rows) > CLASSES else 0
    if left_out:
        gap = [f"… {left_out} more …", *[""] * len(names)]
        rows = [*rows[: CLASSES // 2], gap, *rows[-CLASSES // 2 :]]
    lines = [table.title] if rows else [f"{table.title}: none"]
    first = column_width([table.first, *(row[0] for row in rows)], FIRST_WIDTH)
    heads = [f"{number} {name}" for number, name in enumerate(names, start=1)]
    widths = [column_width([head, *(row[place] for row in rows)], WIDTH) for place, head in enumerate(heads, start=1)]
    start = 0
    while rows and start < len(heads):
        stop, used = start, first
        while stop < len(heads) and (stop == start or used + 2 + widths[stop] <= width):
            used += 2 + widths[stop]
            stop += 1
        lines += [""] * (start > 0)
        for row in ([table.first, *heads], *rows):
            cells = [fit(row[0], first), *(fit(row[k + 1], widths[k]) for k in range(start, stop))]
            lines.append("  ".join(cells).rstrip())
        start = stop
    return "\n".join([*lines, *([table.note] if table.note else [])])
