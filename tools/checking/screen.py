"""The findings as lines on the screen, the worst first."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from tools.checking.findings import Finding, Level, Place, counted, with_last_advice
from util.text import printable

HEADS = {Level.STOPS: "STOPS", Level.HURTS: "HURTS", Level.NOTE: "note"}
MEANING = {
    Level.STOPS: "training refuses the data, or learns something wrong",
    Level.HURTS: "training runs, and the result suffers",
    Level.NOTE: "harmless if it is meant",
}
WIDTH = 116
INDENT = " " * 7
NAMED = 2  # places that the screen names for each finding


def lines(findings: Sequence[Finding]) -> list[str]:
    """The findings, in the given order, then how many there are."""
    shown = []
    for found, advice in with_last_advice(findings):
        shown += [*_wrapped(printable(found.title, 600), f"{HEADS[found.level]:<5}  "), *_places(found)]
        if advice:
            shown += _wrapped(printable(advice, 800), f"{INDENT}→ ", indent=f"{INDENT}  ")
    return [*shown, summary(findings)]


def summary(findings: Sequence[Finding]) -> str:
    """One line: how many findings of each level."""
    if not findings:
        return "nothing found: the data look clean"
    counts = {level: sum(found.level == level for found in findings) for level in Level}
    parts = [f"{counted(counts[Level.STOPS], 'finding')} that stop{'s' * (counts[Level.STOPS] == 1)} training"]
    parts = parts if counts[Level.STOPS] else []
    if counts[Level.HURTS]:
        parts.append(f"{counted(counts[Level.HURTS], 'finding')} that hurt{'s' * (counts[Level.HURTS] == 1)}")
    if counts[Level.NOTE]:
        parts.append(counted(counts[Level.NOTE], "note"))
    return ", ".join(parts)


def where(place: Place) -> str:
    """The file and what is wrong there, safe to print."""
    number = f" (annotation {place.annotation})" if place.annotation is not None else ""
    detail = f": {printable(place.detail, 300)}" if place.detail else ""
    return f"{printable(place.file, 120)}{number}{detail}"


def _places(found: Finding) -> list[str]:
    shown = [line for place in found.places[:NAMED] for line in _wrapped(where(place), INDENT)]
    more = found.count - min(len(found.places), NAMED)
    return [*shown, f"{INDENT}… and {more:,} more"] if more > 0 and shown else shown


def _wrapped(text: str, head: str, indent: str = INDENT) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False)
