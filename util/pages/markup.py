"""HTML that is known to be safe, and text that is made so."""

from __future__ import annotations

import html
from typing import Any

from util.text import escape, printable

LIMIT = 2000  # characters of a text in a page


class Html(str):
    """HTML of our own, in which every text from elsewhere went through `text_html`."""


def text_html(text: Any, limit: int = LIMIT, keep: str = "") -> Html:
    """`str(text)` for a page: what steers HTML or a terminal is a visible escape, and a long text is cut with "…".

    Args:
        text: any text, such as a class name; `Html` is returned as it is.
        limit: characters that are kept.
        keep: control characters that stay, such as line breaks in a command.
    """
    if isinstance(text, Html):
        return text
    shown = printable(text, limit) if not keep else escape(_cut(str(text), limit), keep)
    return Html(html.escape(shown, quote=True))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def number(value: float | None) -> str:
    """A number as a reader wants it: 1,234, 0.123, 12.3, 1.5e-05; "–" for None and NaN."""
    if value is None or value != value:
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e9):
        return f"{int(value):,}"
    if abs(value) in (0, float("inf")) or 1e-3 <= abs(value) < 1:
        return f"{value:.3f}"
    if 1 <= abs(value) < 1e9:
        return f"{value:,.{max(0, 2 - (len(str(int(abs(value)))) - 1))}f}"
    return f"{value:.3g}"
