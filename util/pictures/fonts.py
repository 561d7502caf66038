"""Text in any script on PIL images and in matplotlib's figures: each character is drawn in the first font that has it.

The first font is DejaVu Sans, which comes with matplotlib and covers most alphabets. Characters beyond it (Chinese,
Japanese, Korean, Indic scripts, Thai) come from the Noto fonts of the optional packages `manimgx-fonts` and
`manimgx-fonts-cjk` (SIL Open Font License) if these are installed, else from the fonts of the system. What no font has,
and what must not be printed, such as control characters, is shown as an escape: `\\u72ac`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import ImageDraw, ImageFont

from util.logging import get_logger
from util.text import escape, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REGULAR = 400  # font weights go from 100 to 900; no other variation axis has a range that contains this value
PACKAGES = ("manimgx_fonts", "manimgx_fonts_cjk")
PLACEHOLDER_FAMILIES = ("lastresort", "adobeblank")  # they draw a frame or nothing, for every character
JOINERS = "\u200c\u200d\ufe0e\ufe0f"  # they modify the character before them, and few fonts list them
THIN, STROKE = 300, 0.12  # font weight below which matplotlib's text gets an outline, and its width in points
LONGEST = 5_000  # letters of a text that are drawn and measured; names from files may have a million
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
    text = visible(text[:LONGEST])
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


def fit_length(text: str, size: int, width: float) -> str:
    """The text, cut so that it takes at most `width` pixels at this text height; "…" marks what was cut off."""
    most = 100 + int(20 * width / size)  # more letters do not fit, unless they take no room
    if len(text) <= most and text_length(text, size) <= width:
        return text
    fits, too_many = 0, min(len(text), most)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if text_length(text[:middle] + "…", size) <= width:
            fits = middle
        else:
            too_many = middle
    return text[:fits].rstrip(JOINERS) + "…"


def with_fonts(figure: Figure) -> Figure:
    """The figure; its texts get the fonts that their letters need, and none of them is read as a formula.

    Call it when all texts are set.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_ticklabels()  # sets their texts
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        shown = text.get_text()
        if shown.isascii():
            continue
        text.set_text(visible(shown))
        files = dict.fromkeys(file for file, _ in _runs(shown))
        if set(files) != {_dejavu()}:
            families = [_family(file) for file in files]
            text.set_fontfamily([*text.get_fontfamily(), *(name for name, _ in families)])
            if any(weight < THIN for _, weight in families):
                text.set_path_effects([withStroke(linewidth=STROKE, foreground=text.get_color())])
    return figure


@functools.cache
def _family(file: str) -> tuple[str, int]:
    """A name under which matplotlib finds a font file, and the weight in which it draws it.

    matplotlib draws a variable font in its default weight, which is thin for some.
    """
    from matplotlib.font_manager import fontManager

    known = len(fontManager.ttflist)
    fontManager.addfont(file)
    entry = fontManager.ttflist[known]
    name = f"{Path(file).stem} of util.pictures"  # its own, so that no other font of that family is found instead
    fontManager.ttflist[known:] = [dataclasses.replace(entry, name=name, style="normal", weight=REGULAR)]
    return name, int(entry.weight) if str(entry.weight).isdigit() else REGULAR


@functools.lru_cache(maxsize=10_000)
def visible(text: str) -> str:
    """The text as it is drawn: characters that must not be printed, or that no font has, are escapes."""
    return "".join(letter if _is_known(letter) else _escaped(letter) for letter in escape(text))


def _escaped(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if ord(letter) < 65536 else f"\\U{ord(letter):08x}"


def unknown_letters(text: str) -> str:
    """The characters of `text` that no font has; they are drawn as escapes. The first time, a warning is given."""
    missing = "".join(dict.fromkeys(letter for letter in escape(text) if not _is_known(letter)))
    if missing and not _warned:
        _warned.append(missing)
        get_logger().warning(
            f"no font has all characters of {printable(text)}: to show them in images, run "
            "`pip install manimgx-fonts manimgx-fonts-cjk` or install a font that has them (this warning is given once)"
        )
    return missing


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Split the text, as it is drawn, into parts of one font each, as (font file, part)."""
    text = visible(text[:LONGEST])
    files: list[str] = []
    for letter in text:
        follows = files and (unicodedata.combining(letter) or _has_no_shape(letter) or letter == " ")
        files.append(files[-1] if follows else _font_for(letter) or _dejavu())
    start = 0
    for file, group in itertools.groupby(files):
        end = start + len(list(group))
        yield file, text[start:end]
        start = end


def _is_known(letter: str) -> bool:
    return letter.isspace() or _has_no_shape(letter) or _font_for(letter) is not None


def _has_no_shape(letter: str) -> bool:
    return letter in JOINERS or unicodedata.category(letter) == "Cf"  # direction marks, tags of flags


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
