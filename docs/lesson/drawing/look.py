"""The common look of the lesson's figures: a light card, a few colours that everyone can tell apart, no words.

One picture serves both languages, so a figure contains single letters, digits, shapes and symbols only.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito's colours, which differ in brightness as well
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
SKY, PINK, YELLOW = "#56b4e9", "#cc79a7", "#f0e442"
COLORS = (BLUE, ORANGE, GREEN, RED, SKY, PINK, YELLOW)
CARD, INK, GREY, FAINT = "#fbfaf6", "#26262b", "#8a8a90", "#dedcd4"
HEAT, SIGNED = "viridis", "PuOr"  # colour maps for values ≥ 0, and for values around 0

DPI = 120
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": CARD,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS),
    "image.interpolation": "nearest",
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": CARD,
    "savefig.facecolor": CARD,
    "legend.frameon": False,
}

FIGURES: dict[str, Callable[[], Figure]] = {}  # filled by `figure`
TRAINED: set[str] = set()  # names of figures that differ between processors


def figure(name: str, trained: bool = False) -> Callable[[Callable[[], Figure]], Callable[[], Figure]]:
    """Register the decorated function: it draws `docs/lesson/images/NAME.png`.

    `trained` marks a figure of a training run: rounding errors differ between processors and grow from step to step.
    """

    def register(draw: Callable[[], Figure]) -> Callable[[], Figure]:
        if name in FIGURES:
            raise ValueError(f"two figures are called {name}")
        FIGURES[name] = draw
        TRAINED.update({name} if trained else ())
        return draw

    return register


def card(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, list[Axes]]:
    """An empty card of `width` × `height` inches and its axes, row by row; `options` as in `Figure.subplots`."""
    sheet = Figure((width, height), layout="constrained")
    axes = sheet.subplots(rows, columns, squeeze=False, **options)
    return sheet, list(axes.flat)


def blank(axes: Axes) -> Axes:
    """Remove frame and ticks, for pictures and diagrams."""
    axes.set_axis_off()
    return axes


def render(name: str) -> Image.Image:
    """Draw a registered figure: an opaque image of at most 128 colours."""
    with matplotlib.rc_context(STYLE):
        sheet = FIGURES[name]()
        file = BytesIO()
        sheet.savefig(file, dpi=DPI)
    return Image.open(file).convert("RGB").quantize(128, dither=Image.Dither.NONE)


def write(name: str, folder: Path) -> Path:
    """Draw a registered figure into `folder`."""
    path = folder / f"{name}.png"
    render(name).save(path, optimize=True)
    return path
