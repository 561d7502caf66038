"""The first parts of a report: the most important numbers, and curves over the epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.run_folder import LOG
from util.pages.charts import lines
from util.pages.markup import Html
from util.pages.page import Page
from util.pictures.run_curves import TITLES
from util.pictures.run_log import curves_of

if TYPE_CHECKING:
    from training.report.page import RunFiles

LOSSES = ("loss", "loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice", "class_error")
SCORES = {"AP": "AP", "mAP": "AP50", "mask_AP": "AP of masks", "PQ": "panoptic quality"}


def add_numbers(page: Page, files: RunFiles) -> None:
    """The last evaluation in a few numbers, and the best epoch."""
    evaluated = files.per_class
    if evaluated is None:
        page.note("There is no evaluation yet.", "info")
        return
    numbers = evaluated["numbers"]
    shown: dict[str, Any] = {name: _measured(numbers.get(name)) for name in ("AP", "AP50", "AP75")}
    if "masks" in evaluated:
        shown["AP of masks"] = _measured(evaluated["masks"]["numbers"].get("AP"))
    if files.quality:
        shown["PQ"] = _measured(files.quality["All"]["pq"])
    if files.errors:
        shown |= {"images": files.errors["images"], "objects": files.errors["objects"]}
    best = ((files.f1 or {}).get("overall") or {}).get("best")
    if best:
        shown |= {"best F1": best["f1"], "at score": best["threshold"]}
    page.figures(shown)
    sizes = {"small": "APs", "medium": "APm", "large": "APl"}
    known = {size: _measured(numbers.get(name)) for size, name in sizes.items()}
    parts = [f"{value:.3f} for {size} objects" for size, value in known.items() if value is not None]
    if parts:
        page.paragraph(f"AP is {', '.join(parts)} (areas below 32² and 96² pixels, and above).")


def add_curves(page: Page, files: RunFiles) -> None:
    """Losses, scores and the learning rate over the epochs."""
    if not files.log:
        return
    path = files.folder / LOG
    charts: list[Html] = []
    scores = {}
    for field, name in SCORES.items():
        for found in curves_of(files.log, "test", field, path).values():
            scores[name] = found
    highest = max((max(values) for _, values in scores.values()), default=0)
    if scores:
        charts.append(lines(scores, title="scores of the evaluations", x_label="epoch", y_range=(0, highest or 1)))
    for field in LOSSES:
        series = {}
        for split, name in (("train", "training"), ("test", "evaluation")):
            found = curves_of(files.log, split, field, path).get("")
            if found:
                series[name] = found
        if series:
            title, unit = TITLES.get(field, (field, ""))
            charts.append(lines(series, title=title, x_label="epoch", y_label=unit))
    rate = curves_of(files.log, "train", "lr", path).get("")
    if rate:
        charts.append(lines({"lr": rate}, title="learning rate", x_label="epoch"))
    if not charts:
        return
    page.heading("Curves")
    if "AP" in scores:
        epochs, values = scores["AP"]
        best = max(range(len(values)), key=values.__getitem__)
        page.paragraph(
            f"{len(files.log)} epoch{'s' * (len(files.log) != 1)}; the highest AP is {values[best]:.3f}, after epoch "
            f"{epochs[best]:g}."
        )
    page.charts(*charts)


def _measured(value: float | None) -> float | None:
    """To three digits; None in place of COCO's -1, which means "nothing to measure"."""
    return None if value is None or value == -1 else round(value, 3)
