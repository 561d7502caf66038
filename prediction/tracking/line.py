"""A line across the picture, and who crosses it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

MARGIN = 0.05  # of a box's shorter side: a centre that is nearer to the line is on neither side of it


@dataclass(frozen=True)
class Line:
    """A line from (x0, y0) to (x1, y1), in pixels of the frame.

    The way across is `in` from the left to the right of somebody who stands at (x0, y0) and looks towards (x1, y1), and
    `out` the other way. Across a line that is drawn from left to right, `in` is downwards.

    Raises:
        ValueError: the ends are not four finite numbers, or are the same point.
    """

    ends: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        if len(self.ends) != 4 or not all(map(math.isfinite, self.ends)) or self.length == 0:
            raise ValueError(f"a line needs two different ends x0 y0 x1 y1, got {' '.join(map(str, self.ends))}")

    @property
    def length(self) -> float:
        """In pixels."""
        x0, y0, x1, y1 = self.ends
        return math.hypot(x1 - x0, y1 - y0)

    def distance(self, point: Sequence[float]) -> float:
        """Distance of a point (x, y) from the endless line, in pixels: negative on the left, positive on the right."""
        x0, y0, x1, y1 = self.ends
        return ((x1 - x0) * (point[1] - y0) - (y1 - y0) * (point[0] - x0)) / self.length

    def place(self, start: Sequence[float], end: Sequence[float]) -> float:
        """Where the way from `start` to `end`, which are on different sides, meets the endless line: 0 and 1 are its
        ends.
        """
        before, after = self.distance(start), self.distance(end)
        share = before / (before - after)
        x, y = (a + share * (b - a) for a, b in zip(start, end))
        x0, y0, x1, y1 = self.ends
        return ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / self.length**2


@dataclass
class Crossings:
    """Counts the crossings of a line by the centres of objects.

    An object has crossed when its centre is clearly on the other side (`MARGIN`), and its way there led between the
    ends of the line. Thus an object that trembles on the line is counted once, and one that was out of sight on the
    line is counted all the same.

    Attributes:
        line: the line.
        found: (id, "in" or "out"), oldest first.
    """

    line: Line
    found: list[tuple[int, str]] = field(default_factory=list)
    _last: dict[int, tuple[float, float]] = field(default_factory=dict)  # id → its last centre clearly on a side

    def see(self, number: int, box: Sequence[float]) -> str | None:
        """The object with this id has the box xyxy in the next frame; returns the way if it has just crossed."""
        x0, y0, x1, y1 = box
        centre = ((x0 + x1) / 2, (y0 + y1) / 2)
        distance = self.line.distance(centre)
        if abs(distance) <= MARGIN * max(min(x1 - x0, y1 - y0), 0):
            return None
        last = self._last.get(number)
        self._last[number] = centre
        if last is None or (self.line.distance(last) > 0) == (distance > 0):
            return None
        if not 0 <= self.line.place(last, centre) <= 1:
            return None
        way = "in" if distance > 0 else "out"
        self.found.append((number, way))
        return way
