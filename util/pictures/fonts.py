"""Text in any script on a PIL image: each character is drawn in the first font that has it.

The first font is DejaVu Sans, which comes with matplotlib and covers most alphabets. Characters beyond it (Chinese,
Japanese, Korean, Indic scripts, Thai) come from the Noto fonts of the optional packages `manimgx-fonts` and
`manimgx-fonts-cjk` (SIL Open Font License) if these are installed, else from the fonts of the system.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import ImageDraw, ImageFont

from util.logging import get_logger

REGULAR = 400  # font weights go from 100 to 900; no other variation axis has a range that contains this value
PACKAGES = ("manimgx_fonts", "manimgx_fonts_cjk")
PLACEHOLDER_FAMILIES = ("lastresort", "adobeblank")  # they draw a frame or nothing, for every character
JOINERS = "\u200c\u200d\ufe0e\ufe0f"  # they modify the character before them, and few fonts list them
_warned: list[str] = []


@functools.cache
def font(size: int, file: str | None = None) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, or the font in `file`, at `size` pixels and regular weight."""
    loaded = ImageFont.truetype(file or _dejavu(), size)
    try:
        axes = loaded.get_variation_axes()
    except (OSError, NotImplementedError):  # not a variable font
        return loaded
    loaded.set_variation_by_axes(
        [REGULAR if axis["maximum"] > REGULAR > axis["minimum"] else axis["default"] for axis in axes]
    )
    return loaded


def text_length(text: str, size: int) -> float:
    """The width of a line of text, in pixels."""
    return sum(font(size, file).getlength(part) for file, part in _runs(text))


def draw_text(
    pen: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, color: tuple[int, int, int], size: int
) -> None:
    """Draw a line of text; `xy` is its left end, at half its height."""
    runs = list(_runs(text))
    if [file for file, _ in runs] == [_dejavu()]:
        pen.text(xy, text, color, font(size), anchor="lm")
        return
    x, middle = xy
    ascent, descent = font(size).getmetrics()
    for file, part in runs:
        run_font = font(size, file)
        pen.text((x, middle + (ascent - descent) / 2), part, color, run_font, anchor="ls")  # on a common baseline
        x += run_font.getlength(part)


def unknown_letters(text: str) -> str:
    """The characters of `text` that no font has; they are drawn as empty frames. The first time, a warning is given."""
    missing = "".join(dict.fromkeys(letter for letter in text if not _is_known(letter)))
    if missing and not _warned:
        _warned.append(missing)
        get_logger().warning(
            f"no font has all characters of {text!r}: to show them in images, run "
            "`pip install manimgx-fonts manimgx-fonts-cjk` or install a font that has them (this warning is given once)"
        )
    return missing


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Split the text into parts of one font each, as (font file, part)."""
    files: list[str] = []
    for letter in text:
        follows = files and (unicodedata.combining(letter) or letter in JOINERS or letter == " ")
        files.append(files[-1] if follows else _font_for(letter) or _dejavu())
    start = 0
    for file, group in itertools.groupby(files):
        end = start + len(list(group))
        yield file, text[start:end]
        start = end


def _is_known(letter: str) -> bool:
    return letter.isspace() or letter in JOINERS or _font_for(letter) is not None


@functools.cache
def _font_for(letter: str) -> str | None:
    """The font file to draw a character with: DejaVu, else the first package that has it, else a system font."""
    bundled = (file for file in (_dejavu(), *_package_fonts()) if ord(letter) in _letters_of(file))
    return next(bundled, None) or _system_font_for(letter)


def _system_font_for(letter: str) -> str | None:
    """The system font that has a character and most of its Unicode block.

    Many fonts have a few characters of foreign scripts; a word must not be split between such a font and another.
    """
    block = range(ord(letter) & ~127, (ord(letter) | 127) + 1)  # most scripts have 128 code points of their own
    for fonts in _system_fonts():
        candidates = [file for file in fonts if ord(letter) in _letters_of(file)]
        if candidates:
            return max(candidates, key=lambda file: sum(code in _letters_of(file) for code in block))
    return None


@functools.cache
def _letters_of(file: str) -> frozenset[int]:
    """The code points that a font has; none for an unreadable file."""
    face = _face(file)
    return frozenset() if face is None else frozenset(face.get_charmap())


def _face(file: str) -> Any:
    """The font opened by matplotlib; None for an unreadable file, as system folders may contain."""
    from matplotlib.ft2font import FT2Font

    try:
        return FT2Font(file)
    except (OSError, RuntimeError):
        return None


@functools.cache
def _dejavu() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@functools.cache
def _package_fonts() -> tuple[str, ...]:
    packages = [spec for name in PACKAGES if (spec := importlib.util.find_spec(name)) and spec.origin]
    return tuple(str(file) for spec in packages for file in sorted(Path(spec.origin).parent.glob("*.[ot]t[fc]")))


@functools.cache
def _system_fonts() -> tuple[tuple[str, ...], ...]:
    """The fonts of the system, grouped by style: upright and regular groups first; in a group, sans-serif fonts first.

    They are listed afresh, because matplotlib caches its own list and misses fonts installed later.
    """
    from matplotlib.font_manager import findSystemFonts

    ranks = sorted(rank for file in findSystemFonts() if (rank := _rank(file)) is not None)
    return tuple(tuple(rank[-1] for rank in group) for _, group in itertools.groupby(ranks, lambda rank: rank[:2]))


def _rank(file: str) -> tuple[bool, int, bool, str] | None:
    """The sort key of a system font; None for a font that cannot draw text at any size."""
    face = _face(file)
    if face is None or not face.scalable or face.family_name.replace(" ", "").lower().startswith(PLACEHOLDER_FAMILIES):
        return None
    slanted = any(word in face.style_name.lower() for word in ("italic", "oblique"))
    table = face.get_sfnt_table("OS/2")
    boldness = abs(table["usWeightClass"] - REGULAR) if table else 0
    return slanted, boldness, "Sans" not in face.family_name, file
