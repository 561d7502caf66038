"""A page from headings, text, tables, pictures and charts, written as one HTML file.

    page = Page("Report", "of my run")
    page.heading("Classes")
    page.table(["class", "AP"], [["cat", 0.5]])
    page.charts(lines({"loss": (epochs, losses)}, title="loss"))
    page.write("report.html")

Every text is escaped. The file needs neither scripts nor network, which its content policy also forbids; it follows the
reader's choice of light or dark, and a phone's width.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from util.files import write_atomically
from util.pages.markup import Html, number, text_html
from util.pages.style import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
LONG = 30  # characters of a cell that holds a sentence
NOTES = ("info", "good", "warning", "bad")


class Page:
    """See the module. Texts may be `Html`, which is taken as it is.

    Args:
        title: of the page and of its first heading.
        subtitle: a line below it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._parts: list[str] = []
        self._contents: list[tuple[str, str]] = []  # (anchor, text) of the headings
        self.size = 0  # bytes of the content so far

    def add(self, content: Html) -> None:
        """Add HTML of one's own, such as a chart."""
        if not isinstance(content, Html):
            raise TypeError(f"a page takes Html, got {type(content).__name__}: use paragraph() for text")
        self._parts.append(content)
        self.size += len(content.encode("utf-8"))

    def heading(self, text: str) -> None:
        """The heading of a section; the page's contents link to it."""
        anchor = f"s{len(self._contents) + 1}"
        self._contents.append((anchor, text))
        self.add(Html(f'<h2 id="{anchor}">{text_html(text)}</h2>'))

    def subheading(self, text: str) -> None:
        """A heading inside a section."""
        self.add(Html(f"<h3>{text_html(text)}</h3>"))

    def paragraph(self, text: str) -> None:
        """A paragraph."""
        self.add(Html(f"<p>{text_html(text)}</p>"))

    def note(self, text: str, kind: str = "info", title: str = "") -> None:
        """A paragraph that stands out; `kind` is one of info, good, warning, bad."""
        if kind not in NOTES:
            raise ValueError(f"a note is one of {', '.join(NOTES)}, got {kind!r}")
        head = f"<b>{text_html(title)}</b> " if title else ""
        self.add(Html(f'<p class="note {kind}">{head}{text_html(text)}</p>'))

    def bullets(self, texts: Iterable[str]) -> None:
        """A list."""
        self.add(Html(f"<ul>{''.join(f'<li>{text_html(text)}</li>' for text in texts)}</ul>"))

    def code(self, text: str) -> None:
        """A command or settings, in which line breaks stay."""
        self.add(Html(f"<pre>{text_html(text, 20_000, keep=chr(10))}</pre>"))

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Names and values, such as settings."""
        rows = "".join(f"<dt>{text_html(name)}</dt><dd>{_cell(value)}</dd>" for name, value in facts.items())
        self.add(Html(f"<dl>{rows}</dl>"))

    def figures(self, values: Mapping[str, Any]) -> None:
        """The most important numbers, large: what it is → value."""
        cards = "".join(f"<div><b>{_cell(v)}</b><span>{text_html(k)}</span></div>" for k, v in values.items())
        self.add(Html(f'<div class="cards">{cards}</div>'))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> None:
        """A table. Numbers are formatted and aligned on the right, None is "–"; a wide table scrolls by itself."""
        rows = [list(row) for row in rows]
        right = [any(_is_number(row[k]) for row in rows) for k in range(len(columns))]
        kinds = [' class="n"' if numeric else "" for numeric in right]
        head = "".join(f"<th{kind}>{text_html(name)}</th>" for name, kind in zip(columns, kinds, strict=True))
        body = "".join(
            f"<tr>{''.join(_table_cell(cell, kind) for cell, kind in zip(row, kinds, strict=True))}</tr>"
            for row in rows
        )
        said = f'<p class="caption">{text_html(caption)}</p>' if caption else ""
        self.add(
            Html(f'{said}<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')
        )

    def charts(self, *charts: Html) -> None:
        """Charts of `util.pages.charts` beside each other; below each other on a phone."""
        self.add(Html(f'<div class="charts">{"".join(charts)}</div>'))

    def picture(self, uri: Html, caption: str = "", *, alt: str = "", drawn: bool = False) -> None:
        """A picture of `util.pages.pictures` with its caption; `drawn`: a figure on white ground, not a photograph."""
        self.add(picture_html(uri, caption, alt=alt, drawn=drawn))

    def gallery(self, pictures: Iterable[Html]) -> None:
        """Several pictures of `picture_html` beside each other; below each other on a phone."""
        self.add(Html(f'<div class="gallery">{"".join(pictures)}</div>'))

    @contextmanager
    def folded(self, summary: str, *, opened: bool = False) -> Iterator[None]:
        """What is added inside is shown when the reader opens it."""
        self.add(Html(f"<details{' open' if opened else ''}><summary>{text_html(summary)}</summary>"))
        try:
            yield
        finally:
            self.add(Html("</details>"))

    def html(self) -> str:
        """The whole page."""
        title = text_html(self.title)
        links = "".join(f'<a href="#{anchor}">{text_html(text, 60)}</a>' for anchor, text in self._contents)
        return "\n".join(
            [
                '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
                f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f'<meta name="color-scheme" content="light dark">\n<title>{title}</title>',
                f"<style>{STYLE}</style>\n</head>\n<body>\n<main>",
                f"<header><h1>{title}</h1>"
                + (f"<p>{text_html(self.subtitle)}</p>" if self.subtitle else "")
                + "</header>",
                f"<nav>{links}</nav>" if len(self._contents) > 2 else "",
                *self._parts,
                "</main>\n</body>\n</html>\n",
            ]
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page as a file, atomically.

        Raises:
            OSError: it cannot be written.
        """
        write_atomically(path, lambda file: file.write(self.html().encode("utf-8")))


def picture_html(uri: Html, caption: str = "", *, alt: str = "", drawn: bool = False) -> Html:
    """See `Page.picture`."""
    said = f"<figcaption>{text_html(caption)}</figcaption>" if caption else ""
    kind = "picture drawn" if drawn else "picture"
    return Html(f'<figure class="{kind}"><img src="{uri}" alt="{text_html(alt or caption, 300)}">{said}</figure>')


def _table_cell(value: Any, kind: str) -> str:
    """A cell; one with a sentence is not squeezed into a column of single words."""
    shown = _cell(value)
    long = ' class="long"' if len(shown) > LONG else ""
    return f'<td{kind or long} dir="auto">{shown}</td>'


def _cell(value: Any) -> Html:
    return text_html(number(value) if value is None or _is_number(value) else value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
