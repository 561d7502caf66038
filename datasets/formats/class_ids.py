"""Class ids of a format that has only names: those of the checkpoint that a run goes on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets.formats.part import FoundData, Part
from util.text import printable

NAMED = 5  # classes that a message lists


def follow_classes(found: FoundData, known: Sequence[Mapping[str, Any]]) -> FoundData:
    """The data set with the ids that `known` categories give the names of its classes, and with these categories.

    A format that states ids keeps them. Capital letters and spaces around a name do not matter.

    Args:
        known: {"id", "name"} of a checkpoint's classes; empty if they are not known.
    """
    if not found.ids_from_names or not known:
        return found
    categories = [dict(category) for category in known]
    parts = {
        name: Part(part.images, part.source, partial(_read, part.reader, part.source, categories))
        for name, part in found.parts.items()
    }
    return replace(found, parts=parts)


def _read(reader: Callable[[], dict[str, Any]], source: Path, known: list[dict[str, Any]]) -> dict[str, Any]:
    """What `reader` reads, with the ids of `known`.

    Raises:
        ValueError: an object is of a class that `known` has not; the message names it.
    """
    data = reader()
    id_of = {_plain(category["name"]): category["id"] for category in reversed(known)}
    names = {category["id"]: category["name"] for category in data["categories"]}
    for annotation in data["annotations"]:
        name = names[annotation["category_id"]]
        if _plain(name) not in id_of:
            listed = ", ".join(printable(category["name"], 40) for category in known[:NAMED])
            raise ValueError(
                f"{printable(source)} has objects of class '{printable(name, 60)}', which is none of the checkpoint's "
                f"classes ({listed}{', …' if len(known) > NAMED else ''}): rename it, or start a new run with the new "
                "classes from its weights, with --init_from"
            )
        annotation["category_id"] = id_of[_plain(name)]
    return data | {"categories": [dict(category) for category in known]}


def _plain(name: str) -> str:
    return name.strip().casefold()
