"""Text on images, in any script."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw

from util.pictures import fonts
from util.text import escape

TTF = Path(matplotlib.get_data_path(), "fonts", "ttf")
SCRIPT_D = "\ue0d0"  # only STIXNonUni has it; stands for a character of a script that DejaVu lacks
NOWHERE = "红"


def forget() -> None:
    """Nothing is known of the fonts of this machine."""
    fonts._font_for.cache_clear()
    fonts.visible.cache_clear()


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
def test_the_packages_cover_every_large_script(script, monkeypatch):
    pytest.importorskip("manimgx_fonts_cjk", reason="the optional fonts are not installed")
    pytest.importorskip("manimgx_fonts", reason="the optional fonts are not installed")
    monkeypatch.setattr(fonts, "_system_fonts", tuple)  # whatever this machine has
    forget()
    try:
        assert fonts.unknown_letters(SCRIPTS[script]) == "" and drawn(SCRIPTS[script]).any()
    finally:
        forget()


@pytest.fixture
def one_other_font(monkeypatch: pytest.MonkeyPatch):
    """The machine has DejaVu and STIXNonUni only."""
    monkeypatch.setattr(fonts, "_package_fonts", tuple)
    monkeypatch.setattr(fonts, "_system_fonts", lambda: (("no such font.ttf", str(TTF / "STIXNonUni.ttf")),))
    forget()
    monkeypatch.setattr(fonts, "_warned", [])
    yield
    forget()


def drawn(text: str, size: int = 30) -> np.ndarray:
    """[H, W], True where there is ink."""
    image = Image.new("L", (400, 80))
    fonts.draw_text(ImageDraw.Draw(image), (10, 40), text, 255, size)
    return np.asarray(image) > 100


def test_a_character_comes_from_the_first_font_that_has_it(one_other_font):
    assert [Path(file).stem for file, _ in fonts._runs("Ωa")] == ["DejaVuSans"]
    runs = [(Path(file).stem, part) for file, part in fonts._runs(f"a b {SCRIPT_D}{SCRIPT_D} c")]
    assert runs == [("DejaVuSans", "a b "), ("STIXNonUni", f"{SCRIPT_D}{SCRIPT_D} "), ("DejaVuSans", "c")]


def test_text_in_several_fonts_is_as_long_as_its_parts_and_on_one_line(one_other_font):
    text = f"ab{SCRIPT_D}ab"
    assert fonts.text_length(text, 30) > 2 * fonts.text_length("ab", 30)
    ink = np.flatnonzero(drawn(text).any(axis=0))
    assert 10 <= ink[0] and ink[-1] <= 10 + fonts.text_length(text, 30)
    rows = [np.flatnonzero(drawn(one)[:, :25].any(axis=1))[-1] for one in ("b", f"b{SCRIPT_D}")]
    assert abs(rows[0] - rows[1]) <= 1  # the same baseline, whatever the neighbours
    middle = np.flatnonzero(drawn("x").any(axis=1)).mean()
    assert 36 < middle < 47


def test_missing_characters_are_warned_of_once(one_other_font, capsys):
    assert fonts.unknown_letters("Ω b") == ""
    assert fonts.unknown_letters(f"a{NOWHERE}{NOWHERE}") == NOWHERE
    fonts.unknown_letters(f"{NOWHERE}b")
    assert capsys.readouterr().out.count("no font has all characters") == 1
    np.testing.assert_array_equal(drawn(NOWHERE), drawn("\\u7ea2"))  # its escape in its place


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "\u202egnp", "\ud800", "\x00"])
def test_what_must_not_be_printed_is_drawn_as_an_escape(text):
    assert fonts.visible(text) == escape(text) != text
    np.testing.assert_array_equal(drawn(text), drawn(escape(text)))


@pytest.mark.parametrize("letter", ["W", "i", "\u0301", "犬", "\x1b"])
@pytest.mark.parametrize("width", [5, 100, 333])
def test_text_of_any_length_is_cut_to_the_longest_start_that_fits(letter, width):
    cut = fonts.fit_length(letter * 1_000_000, 20, width)
    assert cut.endswith("…") and len(cut) <= 100 + width
    longer = cut[:-1] + letter + "…"
    assert fonts.text_length(cut, 20) <= max(width, fonts.text_length("…", 20))
    assert fonts.text_length(longer, 20) > width or letter == "\u0301"
    assert fonts.fit_length("iii", 20, width=100) == "iii"


def test_characters_without_a_shape_are_not_missing(one_other_font):
    assert fonts.unknown_letters("a\u200db\ufe0f c\n") == ""


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch):
    """Let the machine have these font files and no font packages."""

    def install(*files: Path) -> None:
        monkeypatch.setattr(fonts, "_package_fonts", tuple)
        monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [str(file) for file in files])
        forget()
        fonts._system_fonts.cache_clear()

    yield install
    monkeypatch.undo()
    forget()
    fonts._system_fonts.cache_clear()


def test_system_fonts_are_sorted_by_style_and_unusable_ones_left_out(system, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    bold, slanted, plain = (TTF / f"STIXNonUni{style}.ttf" for style in ("Bol", "Ita", ""))
    system(bold, TTF / "LastResortHE-Regular.ttf", tmp_path / "broken.ttf", slanted, plain)
    assert [[Path(file).stem for file in group] for group in fonts._system_fonts()] == [
        *(["STIXNonUni"], ["STIXNonUniBol"], ["STIXNonUniIta"])
    ]
    assert fonts._font_for(SCRIPT_D) == str(plain) and fonts._font_for(NOWHERE) is None


def test_the_font_with_most_of_the_script_is_chosen(system, monkeypatch):
    full, some = str(TTF / "STIXNonUni.ttf"), str(TTF / "STIXGeneral.ttf")
    block = range(ord(SCRIPT_D) & ~127, ord(SCRIPT_D) + 1)
    letters = {full: frozenset(block), some: frozenset({ord(SCRIPT_D)})}
    monkeypatch.setattr(fonts, "_letters_of", lambda file: letters.get(file, frozenset()))
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ((some, full),))
    assert fonts._system_font_for(SCRIPT_D) == full
