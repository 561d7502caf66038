"""Parts of a report: the table of classes, precision and recall, confusion, panoptic quality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from util.pages.page import Page, picture_html
from util.pages.pictures import figure_uri

if TYPE_CHECKING:
    from training.report.page import RunFiles

MAX_ROWS = 500  # of a table
FIGURE_BYTES = 200_000  # of a picture of curves
PICTURES = {
    "pr_curves.png": "Precision over recall: the mean over classes at each IoU, and each class at IoU 0.5.",
    "f1.png": "Precision, recall and F1 over the score threshold, and F1 of each class.",
    "confusion.png": "Confusion matrix: the truth in rows, predictions in columns, the background last.",
}


def add_classes(page: Page, files: RunFiles) -> None:
    """Numbers of each class, the worst first."""
    if files.per_class is None:
        return
    rows = [row for row in files.per_class["per_class"] if row["AP"] >= 0]
    page.heading("Classes")
    absent = len(files.per_class["per_class"]) - len(rows)
    if absent:
        page.paragraph(f"{absent:,} class{'es' * (absent != 1)} without an object in these images: left out.")
    if not rows:
        return
    errors = {row["id"]: row for row in (files.errors or {}).get("per_class", ())}
    best = {row["id"]: row.get("best") or {} for row in (files.f1 or {}).get("per_class", ())}
    masks = {row["id"]: row for row in files.per_class.get("masks", {}).get("per_class", ())}
    columns = ["class", "objects", "found", "AP", "AP50", "AR"]
    columns += ["AP of masks"] * bool(masks)
    columns += ["best F1", "at score", "costs most AP50"]
    table = []
    for row in sorted(rows, key=lambda row: row["AP"])[:MAX_ROWS]:
        about, at_best = errors.get(row["id"], {}), best.get(row["id"], {})
        cells = [row["name"] or f"class {row['id']}", about.get("objects"), about.get("found")]
        cells += [_measured(row[name]) for name in ("AP", "AP50", "AR")]
        cells += [_measured(masks[row["id"]]["AP"])] if masks else []
        table.append(
            [*cells, _measured(at_best.get("f1")), at_best.get("threshold"), _dearest(about.get("AP_cost", {}))]
        )
    _note_of_cut(page, len(rows), "eval/per_class.json")
    page.table(columns, table, "The worst class first. found: at the score threshold of the best F1 overall")


def add_pictures(page: Page, files: RunFiles) -> None:
    """The evaluation's pictures of curves and of the confusion matrix."""
    found = {name: files.picture(name) for name in PICTURES}
    if not any(found.values()):
        return
    page.heading("Precision, recall, confusion")
    for name, content in found.items():
        if content:
            page.add(picture_html(figure_uri(content, FIGURE_BYTES), PICTURES[name], drawn=True))


def add_panoptic(page: Page, files: RunFiles) -> None:
    """Panoptic quality of all, things, stuff and each class."""
    if not files.quality:
        return
    page.heading("Panoptic quality")
    groups = [
        [name, *(_percent(files.quality[name][key]) for key in ("pq", "sq", "rq")), files.quality[name]["n"]]
        for name in ("All", "Things", "Stuff")
    ]
    page.table(["", "PQ", "SQ", "RQ", "classes"], groups, "In per cent; PQ = SQ · RQ")
    rows = [row for row in files.quality["per_class"] if row["PQ"] >= 0]
    table = [
        [row["name"], "thing" if row["isthing"] else "stuff", *(_percent(row[key]) for key in ("PQ", "SQ", "RQ"))]
        for row in sorted(rows, key=lambda row: row["PQ"])[:MAX_ROWS]
    ]
    _note_of_cut(page, len(rows), "panoptic_eval/quality.json")
    page.table(["class", "", "PQ", "SQ", "RQ"], table, "The worst class first, in per cent")


def _note_of_cut(page: Page, rows: int, file: str) -> None:
    if rows > MAX_ROWS:
        page.paragraph(f"{rows - MAX_ROWS:,} better classes are left out: {file} has all.")


def _dearest(costs: Mapping[str, float | None]) -> str | None:
    """The kind of errors that costs most, with its cost."""
    known = {kind: cost for kind, cost in costs.items() if cost}
    if not known:
        return None
    kind = max(known, key=known.__getitem__)
    return f"{kind} {known[kind]:.3f}"


def _measured(value: Any) -> float | None:
    return None if value is None or value == -1 else round(value, 3)


def _percent(value: float) -> float | None:
    return None if value < 0 else round(100 * value, 1)
