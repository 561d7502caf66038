"""Ways to damage a file: bytes are flipped, dropped, added and mixed; values are replaced, dropped and duplicated."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# Bytes with a meaning in some format: terminators, signs, braces, segment markers, pickle opcodes.
TOKENS = (
    *(b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xd8", b"\xff\xd9", b"PK\x03\x04", b"IEND", b"Exif\0\0II*\0"),
    *(b"{", b"]", b'"', b"\\u", b"1e999", b"NaN", b"-1", b"9" * 20, b"\x80\x02", b"R.", b"cos\nsystem\n"),
)

# Text that steers a terminal or pretends to be a line of the program. Printed raw, it is a finding: see `oracle`.
FORGED = "FORGED"
TEXTS = (
    *(f"\nerror: {FORGED}", f"a\r{FORGED}", f"a\u2028{FORGED}", f"a\x85{FORGED}", f"\x0b{FORGED}", f"\0{FORGED}"),
    *(f"\x1b[2J\x1b[31m{FORGED}", f"\x1b]0;{FORGED}\x07", f"\x9b31m{FORGED}", f"\x08\x08\x7f{FORGED}"),
    *(f"\u202e{FORGED}", f"\u2066{FORGED}", f"\ud800{FORGED}\udc00", f"\ufeff{FORGED}", f"\U000e0041{FORGED}"),
    *("x" * 100_000, "\n" * 3000, "é" * 300, "猫🐈", "{0} %s %(name)s {name!r}", "a/../b", "CON", " ", "-rf", "a\\b"),
)

# Values to replace others with: every type, and extreme numbers.
VALUES = (
    *TEXTS,
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e300, 1e-300, math.nan, math.inf, -math.inf),
    *(2**31, -(2**31), 2**53 + 1, 2**63, -(2**63) - 1, 10**30, 10**400, 91, 3.0),
    *("", "abc", "1", "\0", "../x", "/etc/passwd", "x" * 5000, "\ud800", "é\n\t", "NaN"),
    *([], {}, [None], [[]], [[[1]]], {"": {}}, {"id": 1}, [1, 2, 3, 4], [0, 0, 0, 0], [math.nan] * 6),
)


def mutate_bytes(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """`content` after one to four random changes; `others` are files to copy parts from."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        start = rng.randrange(len(data) + 1)
        length = min(rng.choice((1, 2, 4, 16, 256)), len(data) - start)
        kind = rng.randrange(7)
        if kind == 0:
            for _ in range(rng.choice((1, 1, 2, 8, 32))):
                if data:
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[start:]
        elif kind == 2:
            data[start:start] = rng.randbytes(rng.choice((1, 2, 8, 64)))
        elif kind == 3:
            del data[start : start + length]
        elif kind == 4:
            token = rng.choice(TOKENS)
            data[start : start + rng.choice((0, len(token)))] = token
        elif kind == 5:
            other = rng.choice(others)
            cut = rng.randrange(len(other) + 1)
            data[start:] = other[cut:]
        else:
            data[start:start] = data[start : start + length] * rng.choice((1, 2, 50))
    return bytes(data)


def mutate_tree(tree: Any, rng: random.Random, values: Sequence[Any] = VALUES) -> Any:
    """A copy of nested dicts and lists after one to three random changes."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree, deepest=rng.choice((1, 2, 3, 9))))  # otherwise nearly all changes hit leaves
        if not places:
            return tree
        holder, key = rng.choice(places)
        rng.choice(_DAMAGES)(holder, key, rng, values)
    return tree


def _places(tree: Any, deepest: int) -> Iterator[tuple[Any, Any]]:
    """Every (dict or list, key or index) down to `deepest` levels below `tree`."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        yield tree, key
        if deepest > 1:
            yield from _places(value, deepest - 1)


def _replace(holder: Any, key: Any, rng: random.Random, values: Sequence[Any]) -> None:
    value = rng.choice(values)
    holder[key] = copy.deepcopy(value) if isinstance(value, list | dict) else value


def _shift(holder: Any, key: Any, rng: random.Random, values: Sequence[Any]) -> None:
    if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        value = holder[key]
        decimal = float(value) if abs(value) < 1e300 else 1e300  # a mutated id may be beyond float64
        holder[key] = rng.choice((value + 1, -value, value * 1000, decimal, str(value)))
    else:
        _replace(holder, key, rng, values)


def _drop(holder: Any, key: Any, rng: random.Random, values: Sequence[Any]) -> None:
    del holder[key]


def _duplicate(holder: Any, key: Any, rng: random.Random, values: Sequence[Any]) -> None:
    if isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
    else:
        holder[rng.choice((f"{key}_", key.upper() if isinstance(key, str) else -1, "id"))] = copy.deepcopy(holder[key])


def _swap(holder: Any, key: Any, rng: random.Random, values: Sequence[Any]) -> None:
    other = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    holder[key], holder[other] = holder[other], holder[key]


def _wrap(holder: Any, key: Any, rng: random.Random, values: Sequence[Any]) -> None:
    holder[key] = rng.choice(([holder[key]], {"a": holder[key]}, [holder[key]] * 2))


_DAMAGES: tuple[Callable[[Any, Any, random.Random, Sequence[Any]], None], ...]
_DAMAGES = (_replace, _replace, _replace, _shift, _shift, _drop, _duplicate, _swap, _wrap)
