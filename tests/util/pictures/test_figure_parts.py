"""Labels, legends, axes and image files."""

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from util.pictures.figure_parts import add_axes, add_legend, labels_of, new_figure, png_of, width_of


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cat", "cat"),
        ("  two \n words\t", "two words"),
        ("собака Ελλάδα ß", "собака Ελλάδα ß"),
        ("犬 (dog)", "(dog)"),  # matplotlib's font has no Chinese
        ("犬", "class 7"),
        ("犬 12", "class 7"),
        ("12", "12"),
        ("", "class 7"),
        ("\x00\x07", "class 7"),
        ("$x_1$ and _y", "$x_1$ and _y"),
        ("i" * 50, "i" * 50),
        ("i" * 60, "i" * 50 + "…"),
        ("W" * 16, "W" * 14 + "…"),
        ("قط", "\u200eقط\u200e"),
    ],
)
def test_names_become_labels_of_one_short_line(name, label):
    assert labels_of([name, "other"], [7, 8]) == [label, "other"]


def test_labels_are_drawn_unchanged_and_within_their_space():
    labels = labels_of(["$broken", "$\\frac{$", "_hidden", "W" * 40, "قط 12"], range(5))
    figure = new_figure(0.6 + 2 + width_of(labels, 8.5), 3)
    axis = add_axes(figure, 0.1, 0.1, 2, 2.8)
    add_legend(axis, ["red"] * 5, labels)
    FigureCanvasAgg(figure).draw()
    assert [text.get_text() for text in axis.texts] == labels
    for text in axis.texts:
        assert text.get_window_extent().x1 < figure.bbox.x1, text


def test_axes_are_placed_in_inches():
    axis = add_axes(new_figure(4, 8), 1, 2, 2, 4)
    np.testing.assert_allclose(axis.get_position().bounds, (0.25, 0.25, 0.5, 0.5))


def test_a_figure_becomes_a_png_without_pyplot(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with Image.open(io.BytesIO(png_of(new_figure(2, 1)))) as image:
        assert image.format == "PNG" and image.size == (220, 110)
