"""The pages of the lesson: where they are, their fences, and running their snippets in order."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from tests.helpers.paths import REPOSITORY

LESSON = REPOSITORY / "docs" / "lesson"
LANGUAGES = ("zh", "en")
CHAPTERS = (
    "00-detr-on-a-page 01-boxes 02-batches 03-resnet 04-backbone 05-positions 06-attention 07-decoder 08-heads "
    "09-matching 10-loss 11-data 12-training 13-scores 14-attention-maps 15-masks"
).split()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


class Fence(NamedTuple):
    """A block of code or output in a page."""

    kind: str  # "python", "text", ...
    line: int  # of the opening fence; the block begins on the next one
    text: str
    follows: bool  # only blank lines between it and the fence before


def fences(page: str) -> Iterator[Fence]:
    """The fences of a page in order."""
    end = 0
    for match in FENCE.finditer(page):
        follows = end > 0 and not page[end : match.start()].strip()
        yield Fence(match[1], page.count("\n", 0, match.start()) + 1, match[2], follows)
        end = match.end()


def run_page(path: Path) -> None:
    """Run all python fences of a page in one namespace and compare what they print.

    The lines of tracebacks are those of the page. A snippet whose output the page does not show must print nothing.

    Raises:
        AssertionError: a snippet prints something else; the message begins with the page and the line.
    """
    found = list(fences(path.read_text(encoding="utf-8")))
    namespace = {"__name__": "lesson"}
    for fence, behind in zip(found, [*found[1:], None]):
        if fence.kind != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * fence.line + fence.text, str(path), "exec"), namespace)
        shown = behind if behind is not None and behind.kind == "text" and behind.follows else None
        compare(printed.getvalue(), shown.text if shown else "", f"{path}:{{}}", (shown or fence).line)


def compare(printed: str, shown: str, where: str, line: int) -> None:
    """Check the output of a snippet against the page, line by line, without regard to the width of spaces."""
    lines, expected = printed.rstrip().splitlines(), shown.rstrip().splitlines()
    for offset in range(max(len(lines), len(expected))):
        got, wanted = ((part[offset : offset + 1] or ["nothing"])[0] for part in (lines, expected))
        place = where.format(line + 1 + offset)
        assert equal(got, wanted), f"{place}: the page shows\n{wanted}\nbut the snippet prints\n{got}"


def equal(got: str, wanted: str) -> bool:
    """True if two lines differ at most by one unit of the last digit of the wanted numbers; integers not at all."""
    if [" ".join(text.split()) for text in NUMBER.split(got)] != [
        " ".join(text.split()) for text in NUMBER.split(wanted)
    ]:
        return False
    return all(_close(a, b) for a, b in zip(NUMBER.findall(got), NUMBER.findall(wanted)))


def _close(got: str, wanted: str) -> bool:
    if not set(wanted) & set(".e"):
        return got == wanted
    return abs(Decimal(got) - Decimal(wanted)) <= Decimal(1).scaleb(Decimal(wanted).as_tuple().exponent)
