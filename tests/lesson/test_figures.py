"""Figures: each is drawn by a function, contains no words, is on disk as drawn, and is used by a page."""

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from docs.lesson.drawing.look import CARD, FIGURES, STYLE, TRAINED, card, figure, render
from docs.lesson.figures import IMAGES, main
from tests.helpers.paths import REPOSITORY
from tests.lesson.pages import LESSON

MAX_BYTES = 80_000
WORD = re.compile(r"[^\W\d_]{2,}")  # also two 汉字
COMMAND = re.compile(r"\\[a-zA-Z]+")  # of a formula, such as \sigma


def words(sheet: Figure) -> list[str]:
    """What a figure contains besides single letters, digits and symbols."""
    texts = [text.get_text() for text in sheet.findobj(Text) if text.get_visible()]
    return [word for text in texts for word in WORD.findall(COMMAND.sub(" ", text))]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_on_disk_as_drawn(name, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    sheets, path = [], IMAGES / f"{name}.png"
    draw = FIGURES[name]
    monkeypatch.setitem(FIGURES, name, lambda: sheets.append(draw()) or sheets[0])
    drawn = render(name)
    assert words(sheets[0]) == []
    assert path.exists(), f"python -m docs.lesson.figures {name}"
    assert path.stat().st_size <= MAX_BYTES
    with Image.open(path) as saved:
        assert saved.info.get("transparency") is None and saved.mode == "P"
        assert saved.size == drawn.size
        # Fonts and processors change single pixels
        difference = np.abs(np.asarray(saved.convert("RGB"), float) - np.asarray(drawn.convert("RGB"), float))
    assert difference.mean() < 4 or name in TRAINED, f"{path} is out of date: python -m docs.lesson.figures {name}"


def test_every_picture_is_a_figure_and_on_a_page():
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted(LESSON.rglob("*.md")))
    saved = {path.stem for path in IMAGES.glob("*.png")}
    assert saved == set(FIGURES)
    assert {name for name in saved if f"images/{name}.png" not in pages} == set()


@pytest.mark.parametrize("text", ["x", "B 3 H W", "256", r"$\sigma_2$", "[B, Q, 4]", "→", "h·w"])
def test_symbols_are_no_words(text):
    with matplotlib.rc_context(STYLE):
        sheet, (axes,) = card(2, 1)
        axes.text(0, 0, text)
    assert words(sheet) == []


@pytest.mark.parametrize("text", ["query", "掩码", "IoU", r"$\mathrm{loss}$"])
def test_words_are_seen(text):
    sheet, (axes,) = card(2, 1)
    axes.set_title(text)
    assert words(sheet) != []


def test_a_figure_is_an_opaque_card(monkeypatch):
    monkeypatch.setattr("docs.lesson.drawing.look.FIGURES", {})
    figure("empty")(lambda: card(2, 1)[0])
    image = render("empty")
    assert image.size == (240, 120) and image.info.get("transparency") is None
    assert image.convert("RGB").getpixel((1, 1)) == tuple(bytes.fromhex(CARD[1:]))
    with pytest.raises(ValueError, match="two figures"):
        figure("empty")(lambda: card(2, 1)[0])


def test_the_command_refuses_unknown_names(capsys):
    with pytest.raises(SystemExit):
        main(["absent"])
    assert "no figure is called absent" in capsys.readouterr().err
