"""Drawn clips of shapes on known paths, in which the shipped detector finds them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.shapes import CATEGORIES, CORNERS, THINGS, contrasting_color, draw_ground, paint_object, signed_distance

IDS = {category["name"]: category["id"] for category in CATEGORIES}
NAMES = [category["name"] for category in THINGS]
SIZE = 96  # pixels: positions, sides and speeds are for a frame of this size, and scale with it


@dataclass(frozen=True)
class Mover:
    """A shape that moves evenly: centre and speed in pixels, and pixels a frame; it is there from `first` to `last`.

    With `bounces` it turns at the edges of the frame, so that all of it stays inside.
    """

    name: str
    start: tuple[float, float]
    speed: tuple[float, float]
    side: float = 26.0
    first: int = 0
    last: int = 10**9
    bounces: bool = False

    def centre(self, frame: int) -> tuple[float, float]:
        x, y = (start + (frame - self.first) * speed for start, speed in zip(self.start, self.speed))
        return (self._turned(x), self._turned(y)) if self.bounces else (x, y)

    def _turned(self, place: float) -> float:
        low, room = 0.6 * self.side, SIZE - 1.2 * self.side
        return low + room - abs((place - low) % (2 * room) - room)


class Seen(NamedTuple):
    """A shape in a frame.

    Attributes:
        index: of its mover.
        label: category id.
        box: xyxy, of all of it, also what is covered or beyond the edge of the frame.
        visible: the share of it that is neither.
    """

    index: int
    label: int
    box: list[float]
    visible: float

    def inside(self, size: int = SIZE) -> list[float]:
        """The box of what is inside a frame of `size`."""
        return [min(max(edge, 0.0), float(size)) for edge in self.box]


def draw_frames(
    movers: list[Mover], frames: int, size: int = SIZE, seed: int = 0
) -> Iterator[tuple[Image.Image, list[Seen]]]:
    """The frames, and the shapes in each, also those that are beyond its edges; later movers cover earlier ones."""
    rng = np.random.default_rng(seed)
    unit = size / SIZE
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
    ground, _, colors = draw_ground(rng, x, y, unit)
    looks = []
    for _ in movers:
        colors.append(contrasting_color(rng, colors))
        looks.append((colors[-1], rng.uniform(0, 2 * np.pi), int(rng.integers(2**31))))
    for frame in range(frames):
        canvas, masks, boxes = ground, {}, {}
        for index, (mover, (color, angle, shade)) in enumerate(zip(movers, looks)):
            if mover.first <= frame <= mover.last:
                centre, side = [unit * place for place in mover.centre(frame)], unit * mover.side
                depth = signed_distance(mover.name, x - centre[0], y - centre[1], side, angle)
                canvas = paint_object(np.random.default_rng(shade), canvas, depth, color, side, unit)
                masks = {other: mask & (depth < 0) for other, mask in masks.items()} | {index: depth >= 0}
                boxes[index] = _box(mover.name, centre, side, angle)
        pixels = np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
        there = [
            Seen(index, IDS[movers[index].name], boxes[index], masks[index].sum() / _area(movers[index], unit))
            for index in masks
        ]
        yield Image.fromarray(np.ascontiguousarray(pixels)), there


def _outline(name: str, side: float, angle: float) -> np.ndarray:
    """Points [n, 2] whose box is that of a shape around (0, 0); of a polygon its corners."""
    corners = CORNERS.get(name, 4)
    turn = angle + np.pi / corners if name in CORNERS else 0.0
    radius = side / (2 * np.sin(np.pi / corners)) if name in CORNERS else side / 2
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _box(name: str, centre: Sequence[float], side: float, angle: float) -> list[float]:
    outline = np.array(centre) + _outline(name, side, angle)
    return [*outline.min(0).tolist(), *outline.max(0).tolist()]


def _area(mover: Mover, unit: float) -> float:
    """In pixels."""
    corners, side = CORNERS.get(mover.name), mover.side * unit
    return np.pi * side**2 / 4 if corners is None else corners * side**2 / (4 * np.tan(np.pi / corners))


def apart(rng: np.random.Generator) -> list[Mover]:
    """Three shapes that go to and fro, each in a lane of its own."""
    return [
        Mover(_name(rng), (_to_and_fro(rng)[0], height), (_to_and_fro(rng)[1], 0), rng.uniform(18, 25), bounces=True)
        for height in (17, 48, 79)
    ]


def free(rng: np.random.Generator) -> list[Mover]:
    """Three shapes that move anywhere inside the frame, and cover each other on their ways."""
    movers = []
    for _ in range(3):
        (x, across), (y, down) = _to_and_fro(rng), _to_and_fro(rng)
        movers.append(Mover(_name(rng), (x, y), (across, down), rng.uniform(18, 25), bounces=True))
    return movers


def passing(rng: np.random.Generator) -> list[Mover]:
    """Eight shapes in four lanes, which enter on one side and leave on the other."""
    movers = []
    for number in range(8):
        way, first = (1, -1)[number % 2], 70 * (number // 4)
        start, speed = (-14 if way > 0 else SIZE + 14, (13, 37, 61, 84)[number % 4]), way * rng.uniform(1.6, 2.2)
        movers.append(Mover(_name(rng), start, (speed, 0), rng.uniform(17, 22), first, first + 78))
    return movers


def crossing(rng: np.random.Generator) -> list[Mover]:
    """Six shapes, which enter from the left or the right, cross the paths of others and leave."""
    movers = []
    for number in range(6):
        angle, offset = rng.uniform(-0.9, 0.9) + np.pi * rng.integers(2), rng.uniform(-16, 16)
        along, pace = np.array([np.cos(angle), np.sin(angle)]), rng.uniform(1.3, 2.2)
        start = SIZE / 2 - 75 * along + offset * np.array([-along[1], along[0]])
        first = 25 * number
        movers.append(Mover(_name(rng), tuple(start), tuple(pace * along), rng.uniform(18, 25), first, first + 115))
    return movers


CLIPS = {"apart": (apart, 150), "free": (free, 150), "passing": (passing, 150), "crossing": (crossing, 240)}
BEGIN = 5  # frames


def movers_of(kind: str, seed: int) -> list[Mover]:
    """The shapes of a clip of `CLIPS`; none begins or ends at the middle line, where crossings are not told apart."""
    make, frames = CLIPS[kind]
    rng = np.random.default_rng(seed)
    while True:
        movers = make(rng)
        ends = [
            mover.centre(frame)[0]
            for mover in movers
            for first, last in [(mover.first, min(mover.last, frames - 1))]
            for frame in (*range(first, first + BEGIN), *range(last - BEGIN, last + 1))
        ]
        if all(abs(x - SIZE / 2) > 6 for x in ends):
            return movers


def _name(rng: np.random.Generator) -> str:
    return NAMES[rng.integers(len(NAMES))]


def _to_and_fro(rng: np.random.Generator) -> tuple[float, float]:
    """A place and a speed."""
    return rng.uniform(20, SIZE - 20), rng.uniform(0.4, 1.6) * rng.choice((-1, 1))
