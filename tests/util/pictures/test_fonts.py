"""Text on pictures, in letters of any script."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw

from util.pictures import fonts

TTF = Path(matplotlib.get_data_path(), "fonts", "ttf")
SCRIPT_D = "\ue0d0"  # a letter that STIXNonUni alone has; it stands for one of a script that DejaVu lacks
NOWHERE = "红"


SCRIPTS = {
    "Chinese": "红细胞 紅血球",
    "Japanese": "赤血球 セル ねこ",
    "Korean": "적혈구",
    "Devanagari": "लाल रक्त",
    "Bengali": "লোহিত",
    "Tamil": "சிவப்பு",
    "Thai": "เม็ดเลือด",
    "Arabic": "كلب",
    "Hebrew": "כלב",
    "Cyrillic": "кошка",
    "Georgian": "წითელი",
    "Amharic": "ድመት",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_requirements_bring_letters_of_every_large_script(script, monkeypatch):
    ours = [file for file in fonts._other_fonts() if "manimgx_fonts" in file]
    monkeypatch.setattr(fonts, "_other_fonts", lambda: ours)  # not what this machine has besides
    fonts._font_for.cache_clear()
    try:
        assert fonts.unknown_letters(SCRIPTS[script]) == "" and drawn(SCRIPTS[script]).any()
    finally:
        fonts._font_for.cache_clear()


@pytest.fixture
def one_other_font(monkeypatch: pytest.MonkeyPatch):
    """The machine has DejaVu and STIXNonUni, and nothing else."""
    monkeypatch.setattr(fonts, "_other_fonts", lambda: ("no such font.ttf", str(TTF / "STIXNonUni.ttf")))
    fonts._font_for.cache_clear()
    monkeypatch.setattr(fonts, "_warned", [])
    yield
    fonts._font_for.cache_clear()


def drawn(text: str, size: int = 30) -> np.ndarray:
    """[H, W], True where there is ink."""
    image = Image.new("L", (400, 80))
    fonts.draw_text(ImageDraw.Draw(image), (10, 40), text, 255, size)
    return np.asarray(image) > 100


def test_a_letter_comes_from_the_first_font_that_has_it(one_other_font):
    assert [Path(file).stem for file, _ in fonts._runs("Ωa")] == ["DejaVuSans"]
    runs = [(Path(file).stem, part) for file, part in fonts._runs(f"a b {SCRIPT_D}{SCRIPT_D} c")]
    assert runs == [("DejaVuSans", "a b "), ("STIXNonUni", f"{SCRIPT_D}{SCRIPT_D} "), ("DejaVuSans", "c")]


def test_text_of_many_fonts_is_as_long_as_its_parts_and_on_one_line(one_other_font):
    text = f"ab{SCRIPT_D}ab"
    assert fonts.text_length(text, 30) > 2 * fonts.text_length("ab", 30)
    ink = np.flatnonzero(drawn(text).any(axis=0))
    assert 10 <= ink[0] and ink[-1] <= 10 + fonts.text_length(text, 30)
    rows = [np.flatnonzero(drawn(one)[:, :25].any(axis=1))[-1] for one in ("b", f"b{SCRIPT_D}")]
    assert abs(rows[0] - rows[1]) <= 1  # a letter does not jump because of its neighbours
    middle = np.flatnonzero(drawn("x").any(axis=1)).mean()
    assert 36 < middle < 47


def test_letters_that_no_font_has_are_said_once(one_other_font, capsys):
    assert fonts.unknown_letters("Ω b") == ""
    assert fonts.unknown_letters(f"a{NOWHERE}{NOWHERE}") == NOWHERE
    fonts.unknown_letters(f"{NOWHERE}b")
    assert capsys.readouterr().out.count("no font here has all letters") == 1
    assert drawn(NOWHERE).any()  # a frame in its place


def test_signs_without_a_shape_are_not_missing(one_other_font):
    assert fonts.unknown_letters("a\u200db\ufe0f c\n") == ""
