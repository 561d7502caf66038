"""Labels, legends, axes and image files."""

import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from util.pictures import fonts
from util.pictures.figure_parts import add_axes, add_legend, labels_of, new_figure, png_of, width_of
from util.pictures.fonts import with_fonts


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cat", "cat"),
        ("  two \n words\t", "two words"),
        ("собака Ελλάδα ß", "собака Ελλάδα ß"),
        ("\ue0d1 12", "\\ue0d1 12"),  # of private use: no font has it
        ("12", "12"),
        ("", "class 7"),
        (" \t", "class 7"),
        ("\x00\x07", "\\x00\\x07"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202eabc", "\\u202eabc"),
        ("\ud800", "\\ud800"),
        ("$x_1$ and _y", "$x_1$ and _y"),
        ("i" * 50, "i" * 50),
        ("i" * 60, "i" * 50 + "…"),
        ("W" * 16, "W" * 14 + "…"),
        ("i" * 1_000_000, "i" * 50 + "…"),
        ("قط", "\u200eقط\u200e"),
    ],
)
def test_names_become_labels_of_one_short_line(name, label):
    assert labels_of([name, "other"], [7, 8]) == [label, "other"]


@pytest.fixture
def no_other_font(monkeypatch):
    """Labels do not depend on the fonts of this machine."""
    monkeypatch.setattr(fonts, "_package_fonts", tuple)
    monkeypatch.setattr(fonts, "_system_fonts", tuple)
    for cache in (fonts._font_for, fonts.visible):
        cache.cache_clear()
    yield
    for cache in (fonts._font_for, fonts.visible):
        cache.cache_clear()


def test_without_a_font_a_script_is_shown_as_escapes(no_other_font):
    assert labels_of(["犬 (dog)", "犬"], [7, 8]) == ["\\u72ac (dog)", "\\u72ac"]


@pytest.mark.filterwarnings("error")  # matplotlib warns of letters without a shape
@pytest.mark.parametrize("name", ["犬猫の写真", "개", "खरगोश", "กระต่าย", "தமிழ்", "🦒 giraffe"])
def test_every_script_is_drawn(name):
    pytest.importorskip("manimgx_fonts_cjk", reason="the optional fonts are not installed")
    pytest.importorskip("manimgx_fonts", reason="the optional fonts are not installed")
    assert labels_of([name], [1]) == [name]
    figure = new_figure(3, 3)
    axis = add_axes(figure, 1, 1, 1, 1)
    axis.set_yticks([0, 1], [name, "plain"])
    add_legend(axis, ["red"], [f"{name}   0.5"])
    axis.set_title(name)
    with_fonts(figure)
    for text in (axis.get_yticklabels()[0], axis.texts[0], axis.title):
        assert name in text.get_text() and any("of util.pictures" in family for family in text.get_fontfamily())
    assert len(axis.get_yticklabels()[1].get_fontfamily()) == 1
    drawn = [np.asarray(Image.open(io.BytesIO(png_of(figure))).convert("L"))]
    for text in (axis.get_yticklabels()[0], axis.texts[0], axis.title):
        text.set_visible(False)
        drawn.append(np.asarray(Image.open(io.BytesIO(png_of(figure))).convert("L")))
        assert (drawn[-2] != drawn[-1]).any()


def test_labels_are_drawn_unchanged_and_within_their_space():
    labels = labels_of(["$broken", "$\\frac{$", "_hidden", "W" * 40, "قط 12", "犬" * 30], range(6))
    figure = new_figure(0.6 + 2 + width_of(labels, 8.5), 3)
    axis = add_axes(figure, 0.1, 0.1, 2, 2.8)
    add_legend(axis, ["red"] * 6, labels)
    FigureCanvasAgg(with_fonts(figure)).draw()
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
