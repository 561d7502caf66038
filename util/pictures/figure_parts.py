"""Parts of figures: axes at a given position, class labels, legends.

Positions are given in inches, because matplotlib's automatic layout takes longer than the drawing. Figures are created
without pyplot, which has global state.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from util.pictures.fonts import fit_length, text_length, unknown_letters, visible, with_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
RULER = 40  # font size at which text is measured
LONGEST_LABEL = 15  # length limit of a label, in multiples of the font size


def png_of(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    content = io.BytesIO()
    with_fonts(figure).savefig(content, format="png", dpi=DPI, pil_kwargs={"compress_level": 2})
    return content.getvalue()


def labels_of(names: Sequence[str], ids: Sequence[int]) -> list[str]:
    """Class names on one line, truncated to `LONGEST_LABEL`; an empty name is replaced by the class id."""
    return [_label(name, f"class {class_id}") for name, class_id in zip(names, ids, strict=True)]


def width_of(labels: Sequence[str], font: float = 8) -> float:
    """The width in inches needed for the longest label, at a font size in points."""
    return max((_length(label) for label in labels), default=0) * font / 72 * 1.04 + 0.05


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; the size is in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a position in inches, measured from the lower left corner."""
    full_width, full_height = figure.get_size_inches()
    return figure.add_axes((left / full_width, bottom / full_height, width / full_width, height / full_height))


def two_squares(first: Sequence[str], second: Sequence[str]) -> tuple[Figure, Axes, Axes]:
    """A figure of two square axes, each with space on its right for a legend of these texts."""
    side, left = 3.8, 0.65
    legends = [0.6 + max(width_of(texts, 8.5), 1.4) for texts in (first, second)]
    figure = new_figure(2 * (left + side) + sum(legends), side + 0.95)
    axes = [add_axes(figure, place, 0.6, side, side) for place in (left, 2 * left + side + legends[0])]
    return figure, axes[0], axes[1]


def add_legend(axis: Axes, colors: Sequence[Any], texts: Sequence[str]) -> None:
    """A legend on the right; unlike matplotlib's own, it shows texts with `$` or a leading underscore unchanged."""
    for place, (color, text) in enumerate(zip(colors, texts, strict=True)):
        y = 0.98 - 0.056 * place
        axis.plot([1.03, 1.09], [y, y], color=color, linewidth=2.5, transform=axis.transAxes, clip_on=False)
        axis.text(1.11, y, text, transform=axis.transAxes, va="center", fontsize=8.5, parse_math=False)


def finish(axis: Axes, title: str = "", grid: str = "both") -> None:
    """Set the title, the grid and a light frame."""
    axis.set_title(title, fontsize=10, y=1.02)
    axis.grid(axis=grid, alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def finish_square(axis: Axes, title: str, x_label: str, y_label: str = "", remark: str = "") -> None:
    """The same for axes from 0 to 1 in both directions; `remark` is written in the middle."""
    finish(axis, title)
    axis.set(xlabel=x_label, ylabel=y_label, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axis.xaxis.set_label_coords(0.5, -0.085)
    axis.yaxis.set_label_coords(-0.1, 0.5)
    axis.text(0.5, 0.5, remark, transform=axis.transAxes, ha="center", color="gray")


def _label(name: str, substitute: str) -> str:
    unknown_letters(name[:1000])  # warns
    text = " ".join(name[:1000].split()) or substitute
    text = fit_length(visible(text), RULER, LONGEST_LABEL * RULER)
    if any(unicodedata.bidirectional(c) in ("R", "AL") for c in text):
        text = f"\N{LEFT-TO-RIGHT MARK}{text}\N{LEFT-TO-RIGHT MARK}"  # keeps a number after it on its right
    return text


def _length(text: str) -> float:
    """The width of a text, in multiples of the font size."""
    return text_length(text, RULER) / RULER
