"""A look at a checkpoint before torch builds it: a small file must not become large or endless.

The pickle in a checkpoint is a program for a small machine. `util.loading.pickle_machine` runs it with inert values.
What it would build is measured here, and everything that is shared counts as often as it is reached, because whoever
walks through the result meets it as often.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from util.loading.archive import Damaged, Unusable, check_archive, is_archive
from util.loading.pickle_machine import Instance, Machine, TensorLike
from util.text import printable

MAX_ENTRIES = 2_000_000  # items of all lists and dictionaries; 100,000 classes have 400,000
MAX_DEPTH = 64
# Bytes of all tensors and texts: the file's, times what sharing allows (tied weights), and small expanded views.
MAX_SHARING, FREE_SHARING = 8, 2**26
_CONTAINERS = (dict, list, tuple, set, Instance)
_OTHER = "pass another file"


@dataclass(frozen=True)
class Contents:
    """What a checkpoint would become.

    Attributes:
        keys: the text keys of the outermost dictionary; empty if it is none.
        classes: the full names of all classes and functions that the file names.
    """

    keys: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()


def survey(path: Path) -> Contents:
    """Check a file of torch.save, of either format, without building anything of it.

    Raises:
        Damaged: it is cut or damaged; in the ZIP format every record's checksum is compared.
        Unusable: it would become far larger than the file, or holds tensors that are not plain and dense.
    """
    size = path.stat().st_size
    if is_archive(path):
        archive = check_archive(path)
        machine = Machine(io.BytesIO(archive.pickle), archive.storages)
        result = machine.run()
    else:  # the format before torch 1.6: several pickles, then the storages
        with path.open("rb") as file:
            magic, version, _ = (Machine(file, {}).run() for _ in range(3))
            if (magic, version) != (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION):
                raise Damaged("it does not begin as torch.save begins a file")
            machine = Machine(file, None)
            result = machine.run()
        if machine.bytes_of_storages > size:
            raise Damaged(f"its tensors have {machine.bytes_of_storages:,} bytes, and it has {size:,}")
    measure(result, size)
    keys = result if isinstance(result, dict) else ()
    return Contents(frozenset(key for key in keys if isinstance(key, str)), frozenset(machine.classes))


def measure(value: Any, size: int) -> None:
    """Count what a file of this many bytes would become.

    Raises:
        Unusable: a limit is exceeded, or a tensor is not plain and dense; the message gives the keys that lead there.
    """
    totals = _totals(value)
    total, limit = _total_of(value, totals), MAX_SHARING * size + FREE_SHARING
    if total.depth > MAX_DEPTH:
        raise Unusable(f"is nested more than {MAX_DEPTH} levels deep, unlike any checkpoint: {_OTHER}")
    if total.entries > MAX_ENTRIES:
        where = _path(value, totals, lambda part: part.entries > MAX_ENTRIES)
        raise Unusable(f"would become more than {MAX_ENTRIES:,} entries{where}, unlike any checkpoint: {_OTHER}")
    if total.size > limit:
        where = _path(value, totals, lambda part: part.size > limit)
        raise Unusable(
            f"has {size:,} bytes and would become more than {limit:,}{where}, since values are repeated: save copies "
            "of the values instead of expanded views"
        )
    if total.fault:
        where = _path(value, totals, lambda part: bool(part.fault))
        raise Unusable(f"holds {total.fault}{where}, and only plain dense tensors are read: convert it before saving")


@dataclass
class _Total:
    """What a value comes to, with all that is in it."""

    entries: int = 1
    size: int = 0  # bytes of tensors and texts
    depth: int = 0
    fault: str = ""

    def add(self, part: _Total) -> None:
        self.entries += part.entries
        self.size += part.size
        self.depth = max(self.depth, part.depth + 1)
        self.fault = self.fault or part.fault


def _totals(value: Any) -> dict[int, _Total]:
    """The totals of all containers in `value`, by their identity; each is visited once, however often it is shared."""
    totals: dict[int, _Total] = {}
    if not isinstance(value, _CONTAINERS):
        return totals
    open_ones = {id(value)}
    waiting = [(value, _Total(), iter(_children(value)))]
    while waiting:
        container, total, children = waiting[-1]
        for _, child in children:
            if isinstance(child, _CONTAINERS) and id(child) not in totals:
                if id(child) in open_ones:
                    raise Unusable(f"holds a value that contains itself, unlike any checkpoint: {_OTHER}")
                if len(waiting) > MAX_DEPTH:
                    raise Unusable(f"is nested more than {MAX_DEPTH} levels deep, unlike any checkpoint: {_OTHER}")
                open_ones.add(id(child))
                waiting.append((child, _Total(), iter(_children(child))))
                break
            total.add(_total_of(child, totals))
        else:
            waiting.pop()
            open_ones.discard(id(container))
            totals[id(container)] = total
            if waiting:
                waiting[-1][1].add(total)
    return totals


def _total_of(value: Any, totals: Mapping[int, _Total]) -> _Total:
    if isinstance(value, _CONTAINERS):
        return totals[id(value)]
    if isinstance(value, TensorLike):
        return _Total(size=value.size, fault=value.fault)
    return _Total(size=len(value)) if isinstance(value, str | bytes) else _Total()


def _path(value: Any, totals: Mapping[int, _Total], is_meant: Callable[[_Total], bool], longest: int = 4) -> str:
    """The first keys that lead to what is meant, as a part of a sentence."""
    keys: list[str] = []
    while len(keys) < longest and isinstance(value, _CONTAINERS):
        found = next(((key, part) for key, part in _children(value) if is_meant(_total_of(part, totals))), None)
        if found is None:
            break
        keys.append(printable(found[0] if isinstance(found[0], str | int) else "a key", 60))
        value = found[1]
    return f" (in `{'.'.join(keys)}`)" if keys else ""


def _children(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
        yield from (("a key", key) for key in value)
    elif isinstance(value, Instance):
        yield from ((value.name, part) for part in value.parts)
    else:
        yield from enumerate(value)
