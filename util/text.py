"""Text from files as it may be printed: nothing in it steers the terminal, forges a line or fills the screen.

Class names, file names, keys and values come from files that others made. Legitimate names in any script stay as they
are, with the joiners that Persian, Hindi and emoji need.
"""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

LINE_LIMIT = 4000  # characters of a printed line; longer ones lose their middle
NAME_WIDTH = 60  # terminal columns of a name in a table

# What becomes a visible escape: control characters (C0, DEL, C1), line and paragraph separators, characters that
# reorder text, characters that take no room, and lone surrogates. Tag characters are kept in the flags that need them.
_UNSAFE = re.compile(
    "\U0001f3f4[\U000e0020-\U000e007e]{1,7}\U000e007f"  # a flag, such as Scotland's
    "|([\x00-\x1f\x7f-\x9f\u2028\u2029"
    "\u061c\u202a-\u202e\u2066-\u206f"
    "\xad\u180e\u200b\u2060-\u2065\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f"
    "\ud800-\udfff])"
)
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_JOINERS = "\u200c\u200d"


class Lines(str):
    """A message of several lines, such as a table, for the logger, which escapes line breaks in any other message.

    Text from files in it must be `printable`, so that it forges no line.
    """


def printable(text: Any, limit: int = 200) -> str:
    """`str(text)` on one line of at most `limit` characters, in which everything unsafe is a visible escape.

    Control characters, line breaks, characters that change the direction or take no room, and lone surrogates become
    escapes such as `\\x1b`, `\\n` and `\\u202e`. What is cut off is marked with "…".
    """
    whole = _string(text)
    escaped = escape(whole[: limit + 1])
    if len(escaped) <= limit:
        return escaped
    kept, room = [], limit - 1
    for part in _parts(whole[: limit + 1]):
        room -= len(part)
        if room < 0:
            break
        kept.append(part)
    return "".join(kept).rstrip(_JOINERS) + "…"


def escape(text: str, keep: str = "") -> str:
    """`text` with visible escapes as in `printable`, at any length; the characters in `keep` stay."""
    return _UNSAFE.sub(lambda found: found[0] if not found[1] or found[1] in keep else _escaped(found[1]), text)


def printable_lines(text: str) -> str:
    """Lines of our own, such as a table, that may contain text from files: as `printable`, but line breaks stay.

    Lines of more than `LINE_LIMIT` characters lose their middle, so that advice at their end is still read.
    """
    return "\n".join(shorten(line) for line in escape(text, keep="\n\t").split("\n"))


def shorten(line: str, limit: int = LINE_LIMIT) -> str:
    """`line` with its middle replaced by "…" if it has more than `limit` characters."""
    if len(line) <= limit:
        return line
    tail = limit // 3
    return f"{line[: limit - tail - 3]} … {line[-tail:]}"


def text_width(text: str) -> int:
    """Width in terminal columns: Chinese, Japanese and Korean letters and emoji take two, accents and joiners none."""
    return len(text) if text.isascii() else sum(map(_width, text))


def column_width(names: Iterable[Any], widest: int = NAME_WIDTH) -> int:
    """Terminal columns for a column of names, to which `fit` cuts or pads them."""
    return min(max((text_width(printable(name, 2 * widest)) for name in names), default=0), widest)


def fit(text: Any, width: int) -> str:
    """`text` as `printable` gives it, cut or padded with spaces to exactly `width` terminal columns.

    Runs of spaces become one space. What is cut off is marked with "…".
    """
    if width < 1:
        return ""
    whole = printable(re.sub(" +", " ", _string(text)[: 20 * width + 100]).strip(" "), limit=10 * width + 50)
    used = text_width(whole)
    if used > width:
        used, kept = 0, []
        for letter in whole:
            used += _width(letter)
            if used > width - 1:
                used -= _width(letter)
                break
            kept.append(letter)
        whole, used = "".join(kept).rstrip(_JOINERS) + "…", used + 1
    return whole + " " * (width - used)


def print_any_script() -> None:
    """Let this process print letters that its terminal or log file cannot hold: as escapes, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _string(text: Any) -> str:
    try:
        return str(text)
    except ValueError:  # Python refuses to write integers of more than 4,300 digits
        return f"a {type(text).__name__} too long to print"


def _parts(text: str) -> Iterator[str]:
    """The escaped text in pieces that must not be cut."""
    start = 0
    for found in _UNSAFE.finditer(text):
        yield from text[start : found.start()]
        yield _escaped(found[1]) if found[1] else found[0]
        start = found.end()
    yield from text[start:]


def _escaped(letter: str) -> str:
    code = ord(letter)
    if code < 256:
        return _NAMED.get(letter, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def _width(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
