"""The glossary: one form of each term in each language, and the forms that no page uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.lesson.pages import LESSON


class Term(NamedTuple):
    """A term, and what not to call it."""

    en: str
    zh: str
    not_en: list[str]
    not_zh: list[str]


def read_terms() -> list[Term]:
    """The rows of the glossary's table."""
    rows = re.findall(r"^\|(.+)\|$", (LESSON / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)[2:]
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    return [Term(en, zh, _forms(not_en), _forms(not_zh)) for en, zh, not_en, not_zh in cells]


def _forms(cell: str) -> list[str]:
    return [form.strip() for form in cell.split(",") if form.strip()]


def contains(prose: str, form: str, longer: list[str]) -> bool:
    """True if a text without code contains a term, in the plural too, and not only as a part of `longer` terms."""
    for other in longer:
        prose = _pattern(other).sub(" ", prose)
    return _pattern(form).search(prose) is not None


def _pattern(form: str) -> re.Pattern[str]:
    if not form.isascii():
        return re.compile(re.escape(form))
    plural = "(?:ies|y)" if form.endswith("y") else "(?:e?s)?"
    words = re.escape(form.removesuffix("y")).replace(r"\ ", r"\s+")  # a line may end between them
    return re.compile(rf"(?<![\w-]){words}{plural}(?![\w-])", re.IGNORECASE | re.ASCII)


def slips(en: str, zh: str, terms: list[Term]) -> Iterator[str]:
    """Where a chapter's prose in the two languages leaves the glossary.

    A Chinese term of two characters may be part of another word, so only longer ones call for the English term.
    """
    for term in terms:
        in_english = contains(en, term.en, [t.en for t in terms if term.en in t.en and t != term])
        in_chinese = contains(zh, term.zh, [t.zh for t in terms if term.zh in t.zh and t != term])
        if in_english and not in_chinese:
            yield f"the English page says {term.en!r}, the Chinese one never {term.zh!r}"
        if in_chinese and not in_english and len(term.zh) > 2:
            yield f"the Chinese page says {term.zh!r}, the English one never {term.en!r}"
        yield from (f"{form!r} in English: say {term.en!r}" for form in term.not_en if contains(en, form, []))
        yield from (f"{form!r} in Chinese: say {term.zh!r}" for form in term.not_zh if contains(zh, form, []))
