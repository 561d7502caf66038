"""Numbers in the text of annotation files, kept as exact as they are written.

Boxes are converted between formats in decimals: what another program wrote as 1.1 becomes 0.1 when 1 is subtracted,
where floats give 0.10000000000000009. So a box that is converted and converted back is the same, bit for bit.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal

EXACT = Context(prec=60)  # more digits than the sum or product of two floats written in full needs
LONGEST = 60  # characters of a number
_INTEGER = re.compile(r"[+-]?[0-9]{1,15}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


def number_in(text: str) -> int | Decimal | None:
    """The number that `text` is, an int if it has no decimal point; None if it is no finite number."""
    if _INTEGER.fullmatch(text):
        return int(text)
    if len(text) > LONGEST or not _DECIMAL.fullmatch(text):
        return None
    return Decimal(text)


def plain_number(value: int | Decimal) -> int | float:
    """The nearest number for COCO's form: an int stays one, a decimal becomes a float."""
    return value if isinstance(value, int) else float(value)


def minus(value: int | Decimal, other: int | Decimal) -> int | Decimal:
    """The exact difference; an int if both are."""
    if isinstance(value, int) and isinstance(other, int):
        return value - other
    return EXACT.subtract(value, other)


def exact(value: int | float) -> Decimal:
    """The decimal that Python prints for a number."""
    return Decimal(repr(value))


def text_of(value: Decimal) -> str:
    """The digits of a decimal without an exponent; whole numbers without a decimal point."""
    if value == value.to_integral_value():
        return format(value.to_integral_value(), "f")
    return format(value.normalize(EXACT), "f")
