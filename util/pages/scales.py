"""Axes of charts: where a value lies, and which round values are written beside the axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

from util.pages.markup import number


@dataclass(frozen=True)
class Scale:
    """Maps the values low..high to 0..1, evenly or by their logarithm; values outside are moved to the ends.

    Attributes:
        low, high: the ends, low < high; above 0 if `log`.
        log: by the logarithm.
    """

    low: float
    high: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of `value`, in 0..1."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values between the ends, about `count`."""
        return _log_ticks(self.low, self.high, count) if self.log else _even_ticks(self.low, self.high, count)


def scale_of(low: float, high: float, *, log: bool = False) -> Scale:
    """A scale that holds both values, also if they are equal; `log` is dropped if `low` is not above 0."""
    log = log and low > 0
    if not low < high:
        low, high = (low / 2, low * 2) if log else (low - max(abs(low), 1) / 2, low + max(abs(low), 1) / 2)
    return Scale(low, high, log)


def tick_text(value: float) -> str:
    """A round value, as short as it can be: 0.5, 2e-5, 15k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    if 0 < abs(value) < 1e-3:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return number(value) if value >= 1000 else f"{value:.6g}"


def _even_ticks(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / max(count, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) if step > 1e-9 else k * step for k in range(first, last + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**p for p in range(first, last + 1) for f in factors if low <= f * 10.0**p <= high]
        if len(found) <= count + 2:
            return found
    every = -(-len(found) // count)
    return found[::every]
