"""Small charts as inline SVG: bars, histogram, lines. Their colours follow the page, light or dark.

Charts are `WIDTH` units wide, so that their text can be read on a phone. Values that are not finite are left out. A bar
or curve says its value where the mouse rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from util.pages.markup import Html, number, text_html
from util.pages.scales import Scale, scale_of, tick_text
from util.text import fit, printable, text_width

WIDTH, HEIGHT = 380, 220  # units of a chart
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 18, 34  # margins of the plot inside it
LETTER = 7.0  # units of an average letter at the charts' font size
NAME_COLUMNS = 20  # columns of text of a bar's name
MAX_POINTS = 300  # of a curve
COLORS = 8  # in the style sheet; further series start again


def bars(
    labels: Sequence[Any],
    series: Mapping[str, Sequence[float | None]],
    *,
    title: str = "",
    high: float | None = None,
) -> Html:
    """Horizontal bars from 0: for each label one bar of each series. A legend names the series if there are several.

    Args:
        labels: names of the rows.
        series: name → values, one for each label; None or NaN: no bar, "–". Values below 0 count as 0.
        title: above the chart.
        high: where the axis ends; by default at the largest value.
    """
    names = [fit(label, min(NAME_COLUMNS, max(text_width(printable(label, 100)), 1))) for label in labels]
    left = 10 + LETTER * max((text_width(name) for name in names), default=0)
    known = [value for values in series.values() for value in values if _is_finite(value)]
    axis = scale_of(0, high or max([0, *known]) or 1)
    room = WIDTH - left - 62  # the value is written behind the bar
    thick = 14 if len(series) == 1 else 10
    step = thick * len(series) + 8
    parts = []
    for row, label in enumerate(labels):
        top = 4 + row * step
        middle = top + thick * len(series) / 2
        parts.append(_text(left - 6, middle + 4, names[row].strip(), "end", full=label))
        for place, (name, values) in enumerate(series.items()):
            value, y = values[row], top + place * thick
            length = room * axis(value) if _is_finite(value) else 0.0
            tip = f"{printable(label)}{f', {printable(name)}' if len(series) > 1 else ''}: {number(value)}"
            parts.append(_rectangle(left, y, length, thick - 2, place, tip))
            parts.append(_text(left + length + 5, y + thick / 2 + 3, number(value), small=thick < 12))
    parts.append(f'<line class="axis" x1="{left:g}" y1="0" x2="{left:g}" y2="{len(labels) * step + 4}"/>')
    return _figure(title, list(series) if len(series) > 1 else [], parts, len(labels) * step + 8)


def histogram(
    series: Mapping[str, Sequence[float]],
    *,
    title: str = "",
    x_label: str = "",
    bins: int = 24,
    log: bool = False,
    marks: Mapping[str, float] | None = None,
    whole: bool = False,
) -> Html:
    """How often values occur; several series stand beside each other as shares of their own, in per cent.

    Args:
        series: name → values.
        title: above the chart.
        x_label: what the values are, with their unit.
        bins: at most this many.
        log: bins of equal ratio; values of 0 or below are then left out.
        marks: name → value at which a line is drawn, such as a limit.
        whole: values are counts, and a bin holds whole numbers.
    """
    marks = marks or {}
    values = {name: _finite(found, above=0 if log else None) for name, found in series.items()}
    every = np.concatenate([*values.values(), np.zeros(0)])
    if not len(every):
        return _figure(title, [], [_text(WIDTH / 2, HEIGHT / 2, "no values", "middle")], HEIGHT)
    edges = _edges(every, bins, log, whole)
    low, high = min([edges[0], *marks.values()]), max([edges[-1], *marks.values()])
    x = scale_of(float(low), float(high), log=log)
    counts = {name: np.histogram(found, edges)[0] for name, found in values.items()}
    shares = len(series) > 1
    heights = {name: 100 * c / max(c.sum(), 1) if shares else c for name, c in counts.items()}
    y = scale_of(0, max(float(h.max()) for h in heights.values()) or 1)
    parts = _frame(x, y, x_label, "% of each" if shares else "count")
    for place, (name, found) in enumerate(heights.items()):
        for left, right, height, count in zip(edges[:-1], edges[1:], found, counts[name]):
            start, end = _across(x, left), _across(x, right)
            wide = (end - start) / len(heights)
            of = f"{printable(name)}: " if shares else ""
            span = number(left) if whole and right - left <= 1 else f"{number(left)} to {number(right)}"
            tip = f"{of}{span}: {number(count)}"
            top = _up(y, height)
            gap = min(1.0, wide / 5)
            parts.append(_rectangle(start + place * wide, top, max(wide - gap, 0.3), _up(y, 0) - top, place, tip))
    for name, value in marks.items():
        at = _across(x, value)
        end = at > WIDTH * 0.6
        parts.append(f'<line class="mark" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(_text(at + (-4 if end else 4), TOP + 9, printable(name, 40), "end" if end else "start"))
    return _figure(title, list(series) if shares else [], parts, HEIGHT)


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    log: bool = False,
) -> Html:
    """Curves: name → (x, y), each ascending in x. A value that is not finite is a gap.

    Args:
        series: the curves; each has a colour of its own up to the eighth.
        title: above the chart.
        x_label, y_label: what the axes are.
        x_range, y_range: where they end; by default at the values.
        log: the y axis is logarithmic; values of 0 or below are gaps.
    """
    curves = {name: _points(*found, log=log) for name, found in series.items()}  # [n, 2]
    known = np.concatenate([*curves.values(), np.zeros((0, 2))])
    known = known[np.isfinite(known).all(axis=1)]
    if not len(known):
        return _figure(title, [], [_text(WIDTH / 2, HEIGHT / 2, "no values", "middle")], HEIGHT)
    (left, bottom), (right, top) = known.min(axis=0).tolist(), known.max(axis=0).tolist()
    x = scale_of(*(x_range or (left, right)))
    y = scale_of(*(y_range or (bottom, top)), log=log)
    parts = _frame(x, y, x_label, y_label)
    for place, (name, points) in enumerate(curves.items()):
        for run in _runs(_thinned(points)):
            places = [(_across(x, a), _up(y, b)) for a, b in run.tolist()]
            tip = f"<title>{text_html(name, 200)}</title>"
            if len(places) == 1:
                (a, b) = places[0]
                parts.append(f'<circle class="f{place % COLORS}" cx="{a:.1f}" cy="{b:.1f}" r="3">{tip}</circle>')
            else:
                path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
                parts.append(f'<polyline class="l{place % COLORS}" points="{path}">{tip}</polyline>')
    return _figure(title, list(series) if len(series) > 1 else [], parts, HEIGHT)


def _figure(title: str, legend: Sequence[str], parts: Sequence[str], height: float) -> Html:
    keys = "".join(
        f'<span><i class="k{place % COLORS}"></i>{text_html(name, 80)}</span>' for place, name in enumerate(legend)
    )
    said = text_html(title, 200)
    return Html(
        '<figure class="chart">'
        + (f"<figcaption>{said}</figcaption>" if title else "")
        + (f'<div class="legend">{keys}</div>' if keys else "")
        + f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{said}">{"".join(parts)}</svg></figure>'
    )


def _frame(x: Scale, y: Scale, x_label: str, y_label: str) -> list[str]:
    """The grid with its numbers and the names of the axes."""
    parts = []
    for value in y.ticks(4):
        at = _up(y, value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>')
        parts.append(_text(LEFT - 5, at + 4, tick_text(value), "end"))
    for value in x.ticks(5):
        at = _across(x, value)
        parts.append(
            f'<line class="axis" x1="{at:.1f}" y1="{HEIGHT - BOTTOM}" x2="{at:.1f}" y2="{HEIGHT - BOTTOM + 4}"/>'
        )
        parts.append(_text(at, HEIGHT - BOTTOM + 15, tick_text(value), "middle"))
    base = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>')
    parts.append(_text(4, TOP - 7, printable(y_label, 60)))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 4, printable(x_label, 60), "end"))
    return parts


def _across(x: Scale, value: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * x(value)


def _up(y: Scale, value: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * y(value)


def _text(x: float, y: float, text: str, anchor: str = "start", *, small: bool = False, full: Any = None) -> str:
    tip = f"<title>{text_html(full, 200)}</title>" if full is not None else ""
    size = ' class="small"' if small else ""
    return f'<text{size} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text_html(text, 200)}{tip}</text>'


def _rectangle(x: float, y: float, width: float, height: float, color: int, tip: str) -> str:
    return (
        f'<rect class="f{color % COLORS}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(height, 0):.1f}">'
        f"<title>{text_html(tip, 400)}</title></rect>"
    )


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _finite(values: Sequence[float], above: float | None = None) -> np.ndarray:
    found = np.asarray(values, dtype=np.float64).reshape(-1)
    found = found[np.isfinite(found)]
    return found if above is None else found[found > above]


def _edges(values: np.ndarray, bins: int, log: bool, whole: bool) -> np.ndarray:
    low, high = values.min(), values.max()
    if whole:
        step = max(1, math.ceil((high - low + 1) / bins))
        return np.arange(low, high + 1 + step, step)
    if low == high:
        return np.array([low * 0.9, low * 1.1]) if low > 0 else np.array([low - 0.5, low + 0.5])
    return np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)


def _points(x: Sequence[float], y: Sequence[float], log: bool) -> np.ndarray:
    points = np.stack([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)], axis=1)
    bad = ~np.isfinite(points).all(axis=1)
    if log:
        bad |= ~(points[:, 1] > 0)
    points[bad, 1] = np.nan
    return points


def _thinned(points: np.ndarray) -> np.ndarray:
    """At most about `MAX_POINTS` of them: of each stretch the lowest and the highest, so that no spike is lost."""
    if len(points) <= MAX_POINTS:
        return points
    kept = []
    for part in np.array_split(np.arange(len(points)), MAX_POINTS // 2):
        y = points[part, 1]
        known = part[~np.isnan(y)]
        chosen = {known[np.argmin(points[known, 1])], known[np.argmax(points[known, 1])]} if len(known) else {part[0]}
        kept.extend(sorted(chosen))
    return points[sorted({0, *kept, len(points) - 1})]


def _runs(points: np.ndarray) -> list[np.ndarray]:
    """The pieces between gaps."""
    gaps = np.flatnonzero(~np.isfinite(points).all(axis=1))
    pieces = np.split(points, gaps)
    runs = [piece[np.isfinite(piece).all(axis=1)] for piece in pieces]
    return [run for run in runs if len(run)]
