"""The figure of `benchmarks.growth`: seconds and memory along each axis, on logarithmic scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

COLORS = ("#1f77b4", "#d95f02", "#2a9d5c")  # told apart on white, also without red or green
WIDTH, HEIGHT = 4.3, 3.0  # inches of one plot
Exponent = Callable[..., float | None]


def draw_growth(curves: Sequence[dict[str, Any]], exponent: Exponent, path: Path) -> None:
    """Write the figure: a column for each axis, seconds above, memory beyond that of the imports below.

    The background is white in every theme.

    Args:
        curves: as `benchmarks.growth` measures them.
        exponent: fits a power law, see `benchmarks.growth.exponent`.
        path: of the PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axes_names = list(dict.fromkeys(curve["axis"] for curve in curves))
    columns = 3
    rows = 2 * -(-len(axes_names) // columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), facecolor="white", layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axis in grid.flat:
        axis.set_visible(False)
    for place, name in enumerate(axes_names):
        chosen = [curve for curve in curves if curve["axis"] == name]
        for half, (what, label, unit) in enumerate([("seconds", "seconds", 1), ("bytes", "GB beyond imports", 1e9)]):
            axis = grid[2 * (place // columns) + half, place % columns]
            axis.set_visible(True)
            for color, curve in zip(COLORS, chosen):
                less = curve["base"] if half else 0
                points = [(p["x"], (p[what] - less) / unit) for p in curve["points"] if p[what] and p[what] > less]
                power = exponent(curve["points"], what, less)
                text = f"{curve['name'].split(',')[0]}: {power:.2f}" if power is not None else curve["name"]
                axis.plot(*zip(*points), "o-", color=color, label=text) if points else None
            axis.set(xscale="log", yscale="log", xlabel=name if half else "", ylabel=label)
            values = sorted({p["x"] for curve in chosen for p in curve["points"]})
            axis.xaxis.set_major_locator(FixedLocator(values))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(FixedFormatter([_short(value) for value in values]))
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
            axis.legend(fontsize=8, frameon=False, title="fitted exponent", title_fontsize=8)
            if not half:
                axis.set_title(name, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _short(value: int) -> str:
    return f"{value // 1000}k" if value >= 1000 else str(value)
