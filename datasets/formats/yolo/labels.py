"""One label file of YOLO → boxes and polygons in pixels.

A line is `class x y width height`, the middle and the sides of a box, or `class x1 y1 x2 y2 x3 y3 …`, a polygon. All
are fractions of the image's width and height.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from datasets.annotations.headers import Size
from datasets.formats.numbers import EXACT, number_in
from datasets.formats.text_files import beginning_of, read_text
from datasets.formats.yolo.names import Names
from util.text import printable

WHAT = "label file"
HEAD = 2**12  # bytes in which a file shows that it is a label file
OUTSIDE = 0.01  # by which rounding and careless programs exceed 0..1; boxes are clamped to the image later
_LINE = re.compile(rb"\s*[0-9]+(\.0*)?([ \t]+[-+.0-9eE]+){4,}\s*$")
_PLAIN = re.compile(r"[0-9]\.[0-9]{1,50}")  # nearly all numbers; the others take the general way
_LOW, _HIGH = Decimal(str(-OUTSIDE)), Decimal(str(1 + OUTSIDE))
_HALF = Decimal("0.5")
_NOTHING = Decimal("1e-20")  # pixels; what is left of 0 where the middle is a fraction without end


class Label(NamedTuple):
    """One object."""

    number: int  # of the class
    box: list[float]  # xywh in pixels
    polygon: list[float] | None  # x1, y1, x2, …, pixels


def looks_like_labels(path: Path) -> bool:
    """Whether the first line of a file is one of a label file; False also if it is empty or cannot be read."""
    head = beginning_of(path, HEAD)
    first = next((line for line in head.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()), b"")
    if len(first) > HEAD // 2:  # perhaps cut within a number
        first = first.rsplit(None, 1)[0]
    return _LINE.match(first) is not None


def read_labels(path: Path, names: Names | None, size: Size | None, keypoints: int = 0) -> list[Label]:
    """The objects of an image.

    Args:
        names: the classes that there are; None if that is not known.
        size: (w, h) of the image in pixels; None if that is not known: the file is checked all the same.
        keypoints: numbers behind the box in each line, which are not read.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is none of a label file's, a number is outside 0..1, or a class is not among the names; the
            message names the file and the line.
    """
    width, height = map(Decimal, size or (1, 1))
    labels = []
    for number, line in enumerate(read_text(path, WHAT).split("\n"), start=1):
        words = line.split()
        if not words:
            continue
        try:
            values, own = _numbers_in(words, keypoints), _class_in(words[0], names)
        except _Fault as fault:
            raise ValueError(f"{WHAT} {printable(path)} line {number} {fault}") from None
        if len(values) == 4:
            labels.append(Label(own, box_in_pixels(values, width, height), None))
        else:
            xs = [EXACT.multiply(x, width) for x in values[::2]]
            ys = [EXACT.multiply(y, height) for y in values[1::2]]
            left, top = min(xs), min(ys)
            box = [left, top, EXACT.subtract(max(xs), left), EXACT.subtract(max(ys), top)]
            polygon = [float(value) for point in zip(xs, ys, strict=True) for value in point]
            labels.append(Label(own, list(map(float, box)), polygon))
    return labels


def box_in_pixels(fractions: Sequence[Decimal], width: Decimal, height: Decimal) -> list[float]:
    """The middle and the sides of a box, as fractions → xywh in pixels."""
    x, y, w, h = fractions
    box = (
        EXACT.multiply(EXACT.subtract(x, EXACT.multiply(w, _HALF)), width),
        EXACT.multiply(EXACT.subtract(y, EXACT.multiply(h, _HALF)), height),
        EXACT.multiply(w, width),
        EXACT.multiply(h, height),
    )
    return [float(EXACT.quantize(value, _NOTHING)) for value in box]


def annotation_of(label: Label) -> dict[str, Any]:
    """`bbox`, `area`, `iscrowd` and, of a polygon, `segmentation`, as in COCO."""
    _, _, width, height = label.box
    if label.polygon is None:
        return {"bbox": label.box, "area": width * height, "iscrowd": 0}
    area = _area(label.polygon) or width * height
    return {"bbox": label.box, "area": area, "iscrowd": 0, "segmentation": [label.polygon]}


class _Fault(ValueError):
    """Something is wrong in a line."""


def _class_in(word: str, names: Names | None) -> int:
    value = number_in(word)
    if value is None or value != int(value) or not 0 <= value < 10**6:
        raise _Fault(
            f"has the class '{printable(word, 40)}': write its number, which is its place among the names, from 0"
        )
    if names and int(value) not in names.of_class:
        last = max(names.of_class)
        raise _Fault(
            f"has class {int(value)}, but {printable(names.source)} names the classes up to {last}: add the name, or "
            "correct the line"
        )
    return int(value)


def _numbers_in(words: list[str], keypoints: int) -> list[Decimal]:
    count = len(words)
    if keypoints and count == 5 + keypoints:
        words = words[:5]
    elif count != 5 and (keypoints or count < 7 or count % 2 == 0):
        if any("," in word for word in words):
            raise _Fault("has commas: separate the numbers by spaces")
        raise _Fault(f"has {count} number{'s' * (count > 1)}, {_expected(count, keypoints)}")
    values = []
    for word in words[1:]:
        number = Decimal(word) if _PLAIN.fullmatch(word) else number_in(word)
        if number is None:
            raise _Fault(f"has '{printable(word, 40)}', which is no number: correct it")
        value = Decimal(number)
        if not _LOW <= value <= _HIGH:
            raise _Fault(
                f"has the number {printable(word, 40)}, which is outside 0..1: coordinates are fractions of the "
                "image's width and height, not pixels"
            )
        values.append(value)
    return values


def _expected(count: int, keypoints: int) -> str:
    if keypoints:
        return f"but a box has 5 and its keypoints {keypoints} more, as kpt_shape says"
    if count == 6:
        return "but a box has 5: class, x, y, width, height; is the sixth a confidence? Labels have none: remove it"
    if count < 5:
        return "but a box has 5: class, x, y, width, height"
    return "but a polygon has an odd number: the class and two for each of at least three points"


def _area(polygon: list[float]) -> float:
    """The area that a polygon encloses, by the shoelace formula."""
    xs, ys = polygon[::2], polygon[1::2]
    return abs(sum(x * v - u * y for x, y, u, v in zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True))) / 2
