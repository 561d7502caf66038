"""Findings about classes: missing from a part, rare, written in two ways, or other than the checkpoint's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tools.checking.entries import PartData
from tools.checking.findings import Finding, Level, Place, counted, finding, has
from tools.checking.model import ModelFacts
from training.classes import compare_classes, plain_name

RARE = 100  # times fewer objects than the most frequent class
FEW = 10  # times fewer objects than the average class, and fewer than this number
NAMED = 6  # classes that a title names


def class_findings(parts: Sequence[PartData], facts: ModelFacts) -> Iterator[Finding]:
    """Everything about the classes of all parts together."""
    counts = {part.name: class_counts(part) for part in parts}
    for part in parts:
        yield from _alike(part)
    yield from _unequal_lists(parts)
    yield from _missing(parts, counts)
    yield from _rare(parts, counts)
    yield from _crowds_only(parts, counts)
    yield from _unused(parts, counts)
    if facts.source:
        yield from _other_than_the_checkpoints(parts, counts, facts)


def class_counts(part: PartData) -> dict[int, int]:
    """Id → number of objects, without crowd regions; every class of the part's list."""
    ids, numbers = np.unique(part.labels[~part.crowd], return_counts=True)
    return dict.fromkeys(part.names, 0) | dict(zip(ids.tolist(), numbers.tolist(), strict=True))


def _alike(part: PartData) -> Iterator[Finding]:
    """Names that differ only by capital letters, spaces, hyphens or underscores, or not at all."""
    groups: dict[str, list[int]] = defaultdict(list)
    for number, name in part.names.items():
        if name != str(number):
            groups[plain_name(name)].append(number)
    found = [numbers for numbers in groups.values() if len(numbers) > 1]
    if not found:
        return
    written = ["; ".join(f"{number}: {part.names[number]!r}" for number in numbers) for numbers in found]
    yield finding(
        "class-names-alike",
        Level.HURTS,
        f"{counted(len(found), 'class', 'classes')} of {part.name} {has(len(found), 'is', 'are')} listed under names "
        "that differ at most by capital letters, spaces, hyphens or underscores "
        f"({written[0]}{', …' if len(found) > 1 else ''})",
        "They are learned as different classes, each from a part of its objects. Merge them under one id.",
        [Place(part.name, part.source, text) for text in written],
        of=len(part.names),
        weight=1.5,
    )


def _unequal_lists(parts: Sequence[PartData]) -> Iterator[Finding]:
    """Ids that mean other classes in one part than in another."""
    first = parts[0]
    for part in parts[1:]:
        yield from _compared(first.name, first, part, "Use one list of categories in all annotation files.")


def _compared(named: str, first: PartData | ModelFacts, part: PartData, advice: str) -> Iterator[Finding]:
    names = {c["id"]: c["name"] for c in first.categories if c["name"] != str(c["id"])}
    own = {number: name for number, name in part.names.items() if number in names and name != str(number)}
    differing = [number for number, name in own.items() if plain_name(name) != plain_name(names[number])]
    try:
        compare_classes([(named, first.categories), (part.name, part.categories)], report=False)
        moved = ""
    except ValueError as error:
        moved = str(error).rpartition(": the ids")[0]
    if not differing and not moved:
        return
    where = part.source
    kind = "checkpoint-classes" if isinstance(first, ModelFacts) else "class-ids-differ"
    places = [
        Place(part.name, where, f"class {n} is {names[n]!r} in {named}, {part.names[n]!r} here") for n in differing
    ]
    if moved:
        what = f"ids mean other classes in {part.name} than in {named}: {moved}"
    else:
        what = (
            f"{counted(len(differing), 'id')} {has(len(differing), 'has', 'have')} another name in {part.name} than in "
        )
        what += f"{named} ({places[0].detail})"
    yield finding(
        kind,
        Level.STOPS if moved else Level.HURTS,
        what,
        f"{'Training refuses this.' if moved else 'They are taken to be the same class.'} {advice}",
        places or [Place(part.name, where, moved)],
        weight=2 if moved else 1,
    )


def _missing(parts: Sequence[PartData], counts: Mapping[str, Mapping[int, int]]) -> Iterator[Finding]:
    """Classes that have objects in some parts only; an empty part is another finding."""
    filled = [part for part in parts if any(counts[part.name].values())]
    names = {number: name for part in reversed(parts) for number, name in part.names.items()}
    present = {number for part in filled for number, count in counts[part.name].items() if count}
    for part in filled:
        absent = sorted(number for number in present if not counts[part.name].get(number))
        if not absent:
            continue
        objects = sum(counts[other.name].get(number, 0) for other in filled for number in absent)
        if part.name == "train":
            advice = (
                "Nothing teaches the model these classes, and their AP will be 0. Add pictures of them to the training "
                "data, or remove the classes."
            )
        else:
            advice = f"The score of {part.name} says nothing about them. Move some of their pictures to {part.name}."
        total = sum(sum(counts[other.name].values()) for other in filled)
        yield finding(
            "class-missing",
            Level.HURTS,
            f"{_classes(len(absent))} without an object in {part.name}: {_listed(absent, names)}",
            advice,
            [
                Place(other.name, other.source, f"{names[number]!r}: {counted(counts[other.name][number], 'object')}")
                for number in absent
                for other in filled
                if counts[other.name].get(number)
            ],
            count=len(absent),
            of=len(present),
            weight=1 + objects / max(total, 1) if part.name == "train" else 0.5,
        )


def _rare(parts: Sequence[PartData], counts: Mapping[str, Mapping[int, int]]) -> Iterator[Finding]:
    """Classes of the training data with far fewer objects than the others."""
    part = next((part for part in parts if part.name == "train"), None)
    found = {number: count for number, count in counts["train"].items() if count} if part else {}
    if len(found) < 2:
        return
    most, mean = max(found.values()), sum(found.values()) / len(found)
    rare = sorted((n for n, c in found.items() if c * RARE < most or (c < FEW and c * FEW < mean)), key=found.get)
    if not rare:
        return
    yield finding(
        "class-rare",
        Level.HURTS,
        f"{_classes(len(rare))} very rare in train: "
        + _listed(rare, {n: f"{part.names[n]} ({found[n]:,})" for n in rare})
        + f"; the most frequent has {counted(most, 'object')}",
        "The model will hardly find them. Add pictures of them, or pass --repeat_threshold, which shows their pictures "
        "more often.",
        [Place(part.name, part.source, f"{part.names[n]!r}: {counted(found[n], 'object')}") for n in rare],
        of=len(found),
        weight=0.7,
    )


def _crowds_only(parts: Sequence[PartData], counts: Mapping[str, Mapping[int, int]]) -> Iterator[Finding]:
    """Classes all of whose annotations in a part are crowd regions."""
    for part in parts:
        ids, numbers = np.unique(part.labels[part.crowd], return_counts=True)
        crowds = {n: c for n, c in zip(ids.tolist(), numbers.tolist(), strict=True) if not counts[part.name][n]}
        if crowds:
            yield finding(
                "class-crowds-only",
                Level.HURTS,
                f"{_classes(len(crowds))} in {part.name} as crowd regions alone: {_listed(sorted(crowds), part.names)}",
                "Training leaves crowd regions out, and the score does not count them. Tools that export masks, such "
                "as CVAT, mark objects as crowds: write iscrowd 0, or export polygons. For Pascal VOC's difficult "
                "objects, pass --voc_difficult keep.",
                [Place(part.name, part.source, f"{part.names[n]!r}: {crowds[n]:,} crowd") for n in sorted(crowds)],
                of=len(part.names),
                weight=1.4,
            )


def _unused(parts: Sequence[PartData], counts: Mapping[str, Mapping[int, int]]) -> Iterator[Finding]:
    names = {number: name for part in reversed(parts) for number, name in part.names.items()}
    annotated = {number for part in parts for number in part.labels.tolist()}
    unused = sorted(names.keys() - annotated)
    if unused and len(unused) < len(names):
        yield finding(
            "class-unused",
            Level.NOTE,
            f"{_classes(len(unused))} listed without an object in any part: {_listed(unused, names)}",
            "They cost nothing. Remove them if they are left over, such as the group of all classes in exports of "
            "Roboflow.",
            [Place(parts[0].name, parts[0].source, f"{number}: {names[number]!r}") for number in unused],
            of=len(names),
            weight=0.1,
        )


def _other_than_the_checkpoints(
    parts: Sequence[PartData], counts: Mapping[str, Mapping[int, int]], facts: ModelFacts
) -> Iterator[Finding]:
    advice = f"To train on the classes of the data, start a new run from the weights, with --init_from {facts.source}."
    for part in parts:
        beyond = sorted(n for n, count in counts[part.name].items() if count and n >= facts.num_classes)
        if beyond:
            yield finding(
                "checkpoint-classes",
                Level.STOPS,
                f"{_classes(len(beyond))} of {part.name} beyond the checkpoint's, which are 0 to "
                f"{facts.num_classes - 1}: {_listed(beyond, part.names)}",
                f"The checkpoint cannot be evaluated on them. {advice}",
                [Place(part.name, part.source, f"{n}: {part.names[n]!r}") for n in beyond],
                weight=2,
            )
        if not facts.categories:
            continue
        yield from _compared("the checkpoint", facts, part, advice)
        known = {category["id"] for category in facts.categories}
        lacking = sorted(n for n, c in counts[part.name].items() if c and n not in known and n < facts.num_classes)
        if lacking:
            yield finding(
                "checkpoint-classes",
                Level.HURTS,
                f"{_classes(len(lacking))} of {part.name} that the checkpoint does not name: "
                f"{_listed(lacking, part.names)}",
                f"It has not learned them. {advice}",
                [Place(part.name, part.source, f"{n}: {part.names[n]!r}") for n in lacking],
                of=len(part.names),
                weight=1.5,
            )
    if facts.categories:
        used = {number for part in parts for number, count in counts[part.name].items() if count}
        spare = {category["id"]: category["name"] for category in facts.categories if category["id"] not in used}
        if spare and used:
            yield finding(
                "checkpoint-classes-unused",
                Level.NOTE,
                f"{_classes(len(spare))} of the checkpoint without an object in these data: "
                f"{_listed(sorted(spare), spare)}",
                "Evaluated on these data, the checkpoint may still predict them.",
                [Place(parts[0].name, facts.source, f"{number}: {name!r}") for number, name in sorted(spare.items())],
                of=len(facts.categories),
                weight=0.1,
            )


def _classes(count: int) -> str:
    return "1 class is" if count == 1 else f"{count:,} classes are"


def _listed(numbers: Sequence[int], names: Mapping[int, str]) -> str:
    more = f", … ({len(numbers) - NAMED} more)" if len(numbers) > NAMED else ""
    return ", ".join(f"{names[number]:.40}" for number in numbers[:NAMED]) + more
