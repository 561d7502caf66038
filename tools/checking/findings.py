"""One finding about a data set: what is wrong, how much it hurts, where, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

MOST_PLACES = 10_000  # of one finding that are kept


class Level(IntEnum):
    """How much a finding hurts, the worst first."""

    STOPS = 0  # training or evaluation refuses the data, or what it learns is wrong
    HURTS = 1  # training runs and loses accuracy, or the score is not what it seems
    NOTE = 2  # harmless if it is meant


class Place(NamedTuple):
    """Where a fault is."""

    part: str  # "train"
    file: str  # of the picture or of the annotations; relative to the part's folder, or a path
    detail: str = ""  # what is wrong there
    annotation: int | None = None  # its id
    row: int | None = None  # of the picture in its part
    boxes: tuple[tuple[float, float, float, float], ...] = ()  # the boxes at fault, xyxy in pixels
    other: tuple[str, int] | None = None  # (part, row) of the picture that it is compared with


@dataclass
class Finding:
    """See the module.

    Attributes:
        kind: its name for programs, such as "box-outside".
        level: how much it hurts.
        title: what is wrong, with counts.
        advice: one or two sentences on what it does and what to do.
        places: where; at most `MOST_PLACES`, the worst first.
        count: how many there are in all.
        harm: orders findings of one level: the share of the data that it spoils, times how bad that is.
    """

    kind: str
    level: Level
    title: str
    advice: str
    places: list[Place] = field(default_factory=list)
    count: int = 0
    harm: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For findings.json."""
        places = [
            {"part": place.part, "file": place.file, "annotation": place.annotation, "detail": place.detail}
            for place in self.places
        ]
        level = self.level.name.lower()
        facts = {"kind": self.kind, "level": level, "title": self.title, "advice": self.advice, "count": self.count}
        return {**facts, "places": places}


def finding(
    kind: str,
    level: Level,
    title: str,
    advice: str,
    places: Iterable[Place] = (),
    *,
    count: int | None = None,
    of: int = 0,
    weight: float = 1.0,
) -> Finding:
    """A finding whose harm is its share of the data times `weight`.

    Args:
        kind, level, title, advice: see `Finding`.
        places: the worst first.
        count: how many there are, by default the number of places.
        of: how many objects or pictures were looked at; 0: all of them are spoiled.
        weight: how bad it is if all are spoiled.
    """
    places = list(places)
    count = len(places) if count is None else count
    share = min(count / of, 1.0) if of else 1.0
    return Finding(kind, level, title, advice, places[:MOST_PLACES], count, share * weight)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; those of one kind and level, as of several parts, stay together."""
    findings = list(findings)
    worst: dict[tuple[Level, str], float] = {}
    for found in findings:
        key = found.level, found.kind
        worst[key] = max(found.harm, worst.get(key, found.harm))
    return sorted(findings, key=lambda f: (f.level, -worst[f.level, f.kind], f.kind, -f.harm))


def with_last_advice(findings: Sequence[Finding]) -> list[tuple[Finding, str]]:
    """Each finding with its advice, which is left out if the next one, of the same kind, gives the same."""
    said = []
    for index, found in enumerate(findings):
        following = [(other.kind, other.advice) for other in findings[index + 1 : index + 2]]
        said.append((found, "" if following == [(found.kind, found.advice)] else found.advice))
    return said


def counted(number: int, one: str, many: str = "") -> str:
    """ "1 picture", "2,804 pictures"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def of_all(number: int, total: int, many: str) -> str:
    """ "3 of 205 pictures"."""
    return f"{number:,} of {total:,} {many}"


def has(number: int, one: str = "has", many: str = "have") -> str:
    """The verb for a number of subjects."""
    return one if number == 1 else many


def agreeing(text: str, number: int) -> str:
    """`text` with "[is|are]" and the like as it is said of a number of subjects."""
    return re.sub(r"\[(.*?)\|(.*?)\]", r"\1" if number == 1 else r"\2", text)


def spoiled(findings: Sequence[Finding]) -> bool:
    """Whether any of them hurts."""
    return any(found.level < Level.NOTE for found in findings)
