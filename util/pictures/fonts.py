"""Text in any script on a PIL picture: each letter in the first font that has it.

The first is DejaVu Sans, which comes with matplotlib and has most alphabets. Letters beyond it (Chinese, Japanese,
Korean, Indic scripts, Thai) come from the Noto fonts of the packages `manimgx-fonts` and `manimgx-fonts-cjk` (SIL Open
Font License), which are nothing but fonts; what these lack too, from the fonts of this machine.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from PIL import ImageDraw, ImageFont

from util.logging import get_logger

REGULAR = 400  # of the weights from 100 to 900, the one axis whose range this lies in
PACKAGES = ("manimgx_fonts", "manimgx_fonts_cjk")
_warned: list[str] = []
JOINERS = "\u200c\u200d\ufe0e\ufe0f"  # they change the letter before them, and few fonts list them


@functools.cache
def font(size: int, file: str | None = None) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, or another file's font, of `size` pixels and regular weight."""
    found = ImageFont.truetype(file or _dejavu(), size)
    try:
        axes = found.get_variation_axes()
    except (OSError, NotImplementedError):  # it has one weight, as most have
        return found
    found.set_variation_by_axes(
        [REGULAR if axis["maximum"] > REGULAR > axis["minimum"] else axis["default"] for axis in axes]
    )
    return found


def text_length(text: str, size: int) -> float:
    """Pixels that a line of text is wide."""
    return sum(font(size, file).getlength(part) for file, part in _runs(text))


def draw_text(
    pen: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, color: tuple[int, int, int], size: int
) -> None:
    """Write a line of text that begins at `xy`, the middle of its height."""
    runs = list(_runs(text))
    if [file for file, _ in runs] == [_dejavu()]:
        pen.text(xy, text, color, font(size), anchor="lm")
        return
    x, middle = xy
    above, below = font(size).getmetrics()
    for file, part in runs:
        own = font(size, file)
        pen.text((x, middle + (above - below) / 2), part, color, own, anchor="ls")  # all on one baseline
        x += own.getlength(part)


def unknown_letters(text: str) -> str:
    """Those letters of the text that no font here has, which are drawn as empty frames; the first are warned of."""
    missing = "".join(dict.fromkeys(letter for letter in text if not _is_known(letter)))
    if missing and not _warned:
        _warned.append(missing)
        get_logger().warning(
            f"no font here has all letters of {text!r}: `pip install manimgx-fonts-cjk manimgx-fonts`, or a font of "
            "the system that has them, makes them readable on pictures (said once)"
        )
    return missing


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """The text in parts of one font each: (its file, the part)."""
    files: list[str] = []
    for letter in text:
        follows = files and (unicodedata.combining(letter) or letter in JOINERS or letter == " ")
        files.append(files[-1] if follows else _font_for(letter) or _dejavu())
    place = 0
    for file, group in itertools.groupby(files):
        end = place + len(list(group))
        yield file, text[place:end]
        place = end


def _is_known(letter: str) -> bool:
    return letter.isspace() or letter in JOINERS or _font_for(letter) is not None


@functools.cache
def _font_for(letter: str) -> str | None:
    """The first font file that has a letter."""
    return next((file for file in (_dejavu(), *_other_fonts()) if ord(letter) in _letters_of(file)), None)


@functools.cache
def _letters_of(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):  # a font of the system that cannot be read; the next one may do
        return frozenset()


@functools.cache
def _dejavu() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@functools.cache
def _other_fonts() -> tuple[str, ...]:
    """Fonts to fall back on, those of packages first; then upright and regular ones before others."""
    packages = [spec for name in PACKAGES if (spec := importlib.util.find_spec(name)) and spec.origin]
    shipped = [str(file) for spec in packages for file in sorted(Path(spec.origin).parent.glob("*.[ot]t[fc]"))]
    from matplotlib.font_manager import fontManager

    listed = sorted(fontManager.ttflist, key=lambda entry: (entry.style != "normal", _boldness(entry.weight)))
    # matplotlib's own: DejaVu is asked already, and the others put signs of mathematics in letters' places.
    own = str(Path(_dejavu()).parent)
    return (*shipped, *dict.fromkeys(entry.fname for entry in listed if not entry.fname.startswith(own)))


def _boldness(weight: int | str) -> int:
    return abs(weight - 400) if isinstance(weight, int) else 0 if weight in ("normal", "regular", "book") else 300
