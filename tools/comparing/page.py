"""A comparison as a picture of its curves, or as a page with everything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools.comparing.runs import Run
from tools.comparing.tables import Table, class_scores, class_values, classes_table, scores_table, settings_table
from util.pages.charts import bars, lines
from util.pages.page import Page
from util.pictures.run_curves import draw_runs
from util.text import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIELDS = ("loss", "loss_ce", "loss_bbox", "loss_giou", "class_error", "AP", "mAP", "lr")
MASK_FIELDS = ("loss_mask", "loss_dice", "mask_AP", "PQ")  # drawn if a run has masks
# Charts of the page: score → label of the axis
CHARTS = {
    "PQ": "PQ",
    "mask AP": "AP of masks",
    "AP": "AP",
    "AP50": "AP50",
    "train loss": "loss",
    "test loss": "loss",
    "class error": "per cent",
    "learning rate": "rate",
}
BARS, MAX_SERIES = 20, 4  # classes and runs in the chart of the classes


def picture(runs: Sequence[Run], names: Sequence[str]) -> Figure:
    """The curves of all runs that have a log, a panel for each field.

    Raises:
        ValueError: no run has one.
    """
    drawn = [(run, name) for run, name in zip(runs, names) if run.log]
    if not drawn:
        raise ValueError("no curves can be drawn: none of the runs has a log")
    fields = FIELDS
    if any("train_loss_mask" in line for run, _ in drawn for line in run.log):
        fields += MASK_FIELDS
    logs, files = [run.log for run, _ in drawn], [run.log_path for run, _ in drawn]
    return draw_runs(logs, files, [name for _, name in drawn], fields, columns=4)


def page(runs: Sequence[Run], names: Sequence[str]) -> Page:
    """Runs, settings that differ, scores, classes and curves."""
    numbered = [f"{number} {shorten(name, 40)}" for number, name in enumerate(names, start=1)]
    result = Page(f"Comparison of {len(runs)} runs", "Changes are those from the first run.")
    result.heading("Runs")
    rows = [[name, run.state(), shorten(run.source, 200), "; ".join(run.notes)] for name, run in zip(numbered, runs)]
    columns = ["run", "done", "where", *(["remarks"] if any(run.notes for run in runs) else [])]
    result.table(columns, [row[: len(columns)] for row in rows])
    _add(result, "Settings that differ", settings_table(runs), numbered)
    _add(result, "Scores", scores_table(runs), numbered)
    for score in class_scores(runs):
        _add(result, f"{score} of each class", classes_table(runs, score), numbered)
        values = class_values(runs, score)
        if values and len(runs) <= MAX_SERIES:
            shown = values if len(values) <= BARS else [*values[: BARS // 2], *values[-BARS // 2 :]]
            series = {name: [row[place] for _, row in shown] for place, name in enumerate(numbered)}
            which = "" if shown is values else f": the {BARS // 2} that lost most and the {BARS // 2} that gained most"
            result.charts(bars([name for name, _ in shown], series, title=f"{score}{which}", high=1.0))
    result.heading("Curves")
    charts = []
    for name, label in CHARTS.items():
        curves = {
            run_name: (sorted(run.curves[name]), [run.curves[name][epoch] for epoch in sorted(run.curves[name])])
            for run_name, run in zip(numbered, runs)
            if run.curves.get(name)
        }
        if curves:
            charts.append(lines(curves, title=name, x_label="epoch", y_label=label))
    result.charts(*charts) if charts else result.paragraph("None of the runs has a log.")
    return result


def _add(result: Page, title: str, table: Table, names: Sequence[str]) -> None:
    result.heading(title)
    if table.rows:
        result.table([table.first, *names], table.rows)
    else:
        result.paragraph("None.")
    if table.note:
        result.paragraph(table.note)


def kind_of(out: Path) -> str:
    """The kind of file that `out` names by its suffix: html, or a kind of picture.

    Raises:
        ValueError: another suffix.
    """
    kind = out.suffix[1:].lower()
    if kind not in ("html", "htm", "png", "svg", "pdf"):
        raise ValueError(f"{out} must end in .html for a page with everything, or in .png, .svg or .pdf for the curves")
    return "html" if kind == "htm" else kind
