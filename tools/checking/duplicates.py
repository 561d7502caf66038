"""Findings about pictures that are there more than once: the same file, or nearly the same picture."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from datasets.splits.near_duplicates import groups_of_near_duplicates
from tools.checking.entries import PartData
from tools.checking.findings import Finding, Level, counted, finding, has, of_all
from tools.checking.scan import Seen

Member = tuple[int, int]  # (index of the part, row of the picture in it)


def duplicate_findings(parts: Sequence[PartData], seen: Sequence[dict[int, Seen]]) -> Iterator[Finding]:
    """Equal and nearly equal pictures, across parts and within one; a file that is listed twice is another finding."""
    members = [(p, row) for p, rows in enumerate(seen) for row, one in rows.items() if not one.error]
    equal = _equal(members, seen)
    yield from _across(parts, equal, exact=True, known=set())
    known = {member for group in equal for member in group}
    names = [f"{parts[p].name}/{parts[p].images[row]['file_name']}" for p, row in members]
    hashes = [seen[p][row].hash if not seen[p][row].is_blank else None for p, row in members]
    near = [[members[k] for k in group] for group in groups_of_near_duplicates(names, hashes)]
    yield from _across(parts, near, exact=False, known=_spanning(equal))
    yield from _within(parts, equal, exact=True, known=set())
    yield from _within(parts, near, exact=False, known=known)


def _equal(members: Sequence[Member], seen: Sequence[dict[int, Seen]]) -> list[list[Member]]:
    groups: dict[bytes, list[Member]] = defaultdict(list)
    for p, row in members:
        groups[seen[p][row].digest].append((p, row))
    return [group for group in groups.values() if len(group) > 1]


def _spanning(groups: Sequence[Sequence[Member]]) -> set[Member]:
    """The pictures of the groups that lie in several parts."""
    return {member for group in groups if len({p for p, _ in group}) > 1 for member in group}


def _across(
    parts: Sequence[PartData], groups: Sequence[Sequence[Member]], *, exact: bool, known: set[Member]
) -> Iterator[Finding]:
    """Groups of pictures in more than one part; those of `known` have been reported."""
    places = []
    pictures = 0
    for group in groups:
        by_part: dict[int, list[Member]] = defaultdict(list)
        for member in group:
            by_part[member[0]].append(member)
        first, *others = sorted(by_part)
        fresh = [member for other in others for member in by_part[other] if member not in known]
        for member in fresh:
            p, row = by_part[first][0]
            twin = parts[p].file(row)
            place = parts[member[0]].place(member[1], f"{'the same file as' if exact else 'nearly'} {twin}")
            places.append(place._replace(other=(parts[p].name, row)))
        pictures += len(fresh)
    if not places:
        return
    total = sum(len(part.images) for part in parts[1:])
    what = "file" if exact else "nearly the same picture"
    yield finding(
        "duplicate-across-parts" if exact else "near-duplicate-across-parts",
        Level.HURTS,
        f"{of_all(pictures, total, 'pictures')} of {' and '.join(part.name for part in parts[1:])} {has(pictures)} "
        f"{'the same file' if exact else what} in {parts[0].name}{' or val' if len(parts) > 2 else ''}",
        "The score is measured on pictures that were learned by heart, so it is too good. "
        + (
            "Remove them from one of the parts."
            if exact
            else "Keep all frames of a scene and all copies of a picture in one part. --val_share keeps them together."
        ),
        places,
        count=pictures,
        of=total,
        weight=1.6 if exact else 1.3,
    )


def _within(
    parts: Sequence[PartData], groups: Sequence[Sequence[Member]], *, exact: bool, known: set[Member]
) -> Iterator[Finding]:
    """Groups of pictures in one part, under several names."""
    for p, part in enumerate(parts):
        places, contradicting = [], 0
        for group in groups:
            rows = [row for q, row in group if q == p and (q, row) not in known]
            paths = {os.path.normpath(part.file(row)) for row in rows}
            if len(paths) < 2:
                continue
            same = exact and all(_objects(part, row) == _objects(part, rows[0]) for row in rows)
            contradicting += exact and not same
            twin = part.file(rows[0])
            more = ", with other annotations" if exact and not same else ""
            for row in rows[1:]:
                place = part.place(row, f"{'the same file as' if exact else 'nearly'} {twin}{more}")
                places.append(place._replace(other=(part.name, rows[0])))
        if not places:
            continue
        clash = f"; {counted(contradicting, 'of them has', 'of them have')} other annotations" if contradicting else ""
        yield part.finding(
            "duplicate" if exact else "near-duplicate",
            Level.HURTS if contradicting else Level.NOTE,
            "pictures",
            f"[is|are] {'the same file as' if exact else 'nearly the same as'} another one",
            "They weigh more than the others, which is harmless if it is meant, as for frames of a video."
            if not contradicting
            else "The model is told different things about one picture. Keep one of them, with all its objects.",
            sorted(places, key=lambda place: "other annotations" not in place.detail),
            more=clash,
            weight=1.0 if contradicting else 0.3,
        )


def _objects(part: PartData, row: int) -> list[tuple[float, ...]]:
    """The labels and boxes of a picture, to compare."""
    return sorted((int(part.labels[k]), *part.boxes[k].tolist()) for k in np.flatnonzero(part.owners == row).tolist())
