"""What was found as one self-contained page, and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tools.checking.amounts import objects_per_picture
from tools.checking.boxes import TINY
from tools.checking.classes import class_counts
from tools.checking.data_set import Checked
from tools.checking.entries import PartData
from tools.checking.findings import MOST_PLACES, Finding, Level, counted, with_last_advice
from tools.checking.model import ModelFacts
from tools.checking.screen import MEANING, summary, where
from tools.checking.sheet import drawn, random_pictures, worst_pictures
from util.files import write_json
from util.pages.charts import bars, histogram
from util.pages.markup import Html
from util.pages.page import Page

FIRST, LISTED = 3, 12  # places of a finding that the page lists: of many, and at most
MOST_LISTED = 200  # behind a click
MOST_CLASSES = 20  # with a bar of their own
KINDS = {Level.STOPS: "bad", Level.HURTS: "warning", Level.NOTE: "info"}
HEADS = {Level.STOPS: "Stops training", Level.HURTS: "Hurts", Level.NOTE: "Note"}


def write_reports(out: Path, checked: Checked, facts: ModelFacts, argv: Sequence[str]) -> list[Path]:
    """Write report.html and findings.json to a folder; returns their paths.

    Raises:
        OSError: they cannot be written.
    """
    page, record = out / "report.html", out / "findings.json"
    _page(checked, facts, argv).write(page)
    content = {
        "data": checked.sentence,
        "checkpoint": facts.source,
        "complete": checked.complete,
        "findings": [found.as_json() for found in checked.findings],
    }
    write_json(record, content)
    return [page, record]


def _page(checked: Checked, facts: ModelFacts, argv: Sequence[str]) -> Page:
    page = Page("Data check", checked.sentence)
    levels = [found.level for found in checked.findings]
    page.figures(
        {
            "findings that stop training": levels.count(Level.STOPS),
            "findings that hurt": levels.count(Level.HURTS),
            "notes": levels.count(Level.NOTE),
            **{f"pictures in {part.name}": len(part.images) for part in checked.parts},
            "objects": sum(int((~part.crowd).sum()) for part in checked.parts),
            "classes": len({number for part in checked.parts for number in part.names}),
        }
    )
    worst = min(levels, default=None)
    kind = "good" if worst in (None, Level.NOTE) else KINDS[worst]
    page.note(summary(checked.findings), kind)
    _findings(page, checked.findings)
    if checked.parts:
        _pictures(page, checked, facts)
        _classes(page, checked.parts)
        _sizes(page, checked, facts)
    _settings(page, facts, argv)
    return page


def _findings(page: Page, findings: Sequence[Finding]) -> None:
    if not findings:
        return
    page.heading("Findings, the worst first")
    for found, advice in with_last_advice(findings):
        page.note(found.title, KINDS[found.level], f"{HEADS[found.level]}: {found.kind}")
        places = [where(place) for place in found.places[:MOST_LISTED]]
        page.bullets(places if len(places) <= LISTED else places[:FIRST])
        if len(places) > LISTED:
            with page.folded(f"{len(places):,} of {found.count:,}; findings.json lists up to {MOST_PLACES:,}"):
                page.bullets(places)
        if advice:
            page.paragraph(advice)


def _pictures(page: Page, checked: Checked, facts: ModelFacts) -> None:
    readable = {
        (part.name, row)
        for part, seen in zip(checked.parts, checked.seen, strict=True)
        for row, one in seen.items()
        if not one.error
    }
    by_name = {part.name: part for part in checked.parts}
    for title, text, choices in (
        (
            "The worst pictures",
            "A few of each finding, the worst first. Boxes at fault are red.",
            worst_pictures(checked.findings, readable),
        ),
        (
            "Random pictures",
            "Look at some boxes even if nothing was found: a program cannot see that a label is wrong.",
            random_pictures(readable, checked.parts),
        ),
    ):
        pictures = [drawn(choice, by_name[choice.part], facts.max_pixels) for choice in choices]
        if any(pictures):
            page.heading(title)
            page.paragraph(text)
            page.gallery([picture for picture in pictures if picture])


def _classes(page: Page, parts: Sequence[PartData]) -> None:
    page.heading("Objects of each class")
    counts = {part.name: class_counts(part) for part in parts}
    names = {number: name for part in reversed(parts) for number, name in part.names.items()}
    totals = {number: sum(counts[part.name].get(number, 0) for part in parts) for number in names}
    order = sorted(names, key=lambda number: (-totals[number], number))
    shares = {
        part.name: [100 * counts[part.name].get(n, 0) / max(sum(counts[part.name].values()), 1) for n in order]
        for part in parts
    }
    few = order[:MOST_CLASSES]
    if few:
        title = "share of each part's objects, in per cent"
        title += f" (the {MOST_CLASSES} most frequent classes)" if len(order) > MOST_CLASSES else ""
        page.charts(bars([names[n] for n in few], {name: v[: len(few)] for name, v in shares.items()}, title=title))
    columns = ["class", "id", *(f"objects in {p.name}" for p in parts), *(f"pictures in {p.name}" for p in parts)]
    rows = [
        [names[n], str(n), *(counts[part.name].get(n, 0) for part in parts), *(_pictures_with(p, n) for p in parts)]
        for n in order
    ]
    if len(rows) > MOST_CLASSES:
        with page.folded(f"all {len(rows):,} classes"):
            page.table(columns, rows)
    else:
        page.table(columns, rows)


def _pictures_with(part: PartData, number: int) -> int:
    return len(np.unique(part.owners[(part.labels == number) & ~part.crowd]))


def _sizes(page: Page, checked: Checked, facts: ModelFacts) -> None:
    page.heading("Sizes, as the model will see them")
    page.paragraph(
        f"In training, a picture's short side is {facts.train_size} pixels at most, its long side {facts.max_size}; in "
        f"evaluation, {facts.val_size} and {facts.max_size}. Sizes below are those at the largest training size."
    )

    def each(values: Callable[[PartData], np.ndarray]) -> dict[str, np.ndarray]:
        return {part.name: values(part) for part in checked.parts}

    def known(part: PartData) -> np.ndarray:
        return part.sizes[(part.sizes > 0).all(axis=1)]

    def sides(part: PartData) -> np.ndarray:
        drawn = _drawn(part)
        return np.sqrt(drawn[:, 2:].prod(axis=1)) * facts.scales(part.sizes)[_owners(part)]

    shown = (
        _histogram("pictures: short side in the file", each(lambda p: known(p).min(axis=1, initial=np.inf)), "pixels"),
        _histogram(
            "pictures: long side at train size",
            each(lambda p: known(p).max(axis=1, initial=0) * facts.scales(known(p))),
            "pixels",
        ),
        _histogram("pictures: width / height", each(lambda p: known(p)[:, 0] / known(p)[:, 1]), "", log=True),
        _histogram(
            "boxes: side of a square of their area, at train size",
            each(sides),
            "pixels, logarithmic",
            log=True,
            marks={f"{TINY} pixels": TINY},
        ),
        _histogram(
            "boxes: width / height",
            each(lambda p: _drawn(p)[:, 2] / _drawn(p)[:, 3]),
            "",
            log=True,
        ),
        _histogram(
            "objects per picture",
            each(objects_per_picture),
            "objects",
            whole=True,
            marks={f"{facts.num_queries} queries": facts.num_queries},
        ),
    )
    page.bullets(text for chart, text in shown if not chart)
    page.charts(*(chart for chart, _ in shown if chart))
    rows = []
    for part in checked.parts:
        found, side = objects_per_picture(part), sides(part)
        low, high = np.percentile(side, [5, 95]) if len(side) else (np.nan, np.nan)
        rows.append(
            [part.name, len(part.images), int(found.sum()), float(found.mean()) if len(found) else None]
            + [int(found.max(initial=0)), int((found == 0).sum()), float(np.round(low, 1)), float(np.round(high, 1))]
        )
    columns = ["part", "pictures", "objects", "objects per picture", "most", "pictures without"]
    page.table([*columns, "5% of boxes below, px", "95% below, px"], rows)


def _drawn(part: PartData) -> np.ndarray:
    """Boxes with an area, without crowd regions, [n, 4]."""
    return part.boxes[_with_area(part)]


def _owners(part: PartData) -> np.ndarray:
    return part.owners[_with_area(part)]


def _with_area(part: PartData) -> np.ndarray:
    return (part.boxes[:, 2:] > 0).all(axis=1) & ~part.crowd


def _histogram(title: str, values: dict[str, np.ndarray], x_label: str, **options: Any) -> tuple[Html | None, str]:
    """The chart; or a sentence instead, where all values are one, as the sizes of a camera's pictures are."""
    distinct = np.unique(np.concatenate([*values.values(), np.zeros(0)]))
    if len(distinct) == 1:
        return None, f"{title}: {f'{distinct[0]:.4g} {x_label}'.strip()}, all of them"
    return histogram(values, title=title, x_label=x_label, **options), ""


def _settings(page: Page, facts: ModelFacts, argv: Sequence[str]) -> None:
    page.heading("What it was checked against")
    facts_of_page = {
        "checkpoint": facts.source or "none: the sizes and queries of main.py, unless a flag says otherwise",
        "largest short side in training": f"{facts.train_size} pixels",
        "short side in evaluation": f"{facts.val_size} pixels",
        "limit of the long side": f"{facts.max_size} pixels",
        "queries": counted(facts.num_queries, "query", "queries"),
        "classes of the checkpoint": "–" if facts.num_classes is None else f"ids 0 to {facts.num_classes - 1}",
    }
    page.facts(facts_of_page)
    page.bullets(f"{HEADS[level]}: {meaning}." for level, meaning in MEANING.items())
    page.code(shlex.join(["python", "-m", "tools.check", *argv]))
