"""Drawn clips of shapes on known paths, in which the shipped detector finds them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from datasets.shapes import CATEGORIES, _contrasting_color, _depth, _draw_ground, _paint

IDS = {category["name"]: category["id"] for category in CATEGORIES}


@dataclass(frozen=True)
class Mover:
    """A shape that moves evenly: centre and speed in pixels, and pixels a frame; it is there from `first` to `last`."""

    name: str
    start: tuple[float, float]
    speed: tuple[float, float]
    side: float = 26.0
    first: int = 0
    last: int = 10**9

    def centre(self, frame: int) -> tuple[float, float]:
        elapsed = frame - self.first
        return self.start[0] + elapsed * self.speed[0], self.start[1] + elapsed * self.speed[1]


def draw_frames(movers: list[Mover], frames: int, size: int = 96, seed: int = 0) -> Iterator[tuple[Image.Image, list]]:
    """The frames, and what is in each: (index of the mover, category id, box xyxy) of all whose centre is inside."""
    rng = np.random.default_rng(seed)
    unit = size / 96
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
    ground, _, colors = _draw_ground(rng, x, y, unit)
    looks = []
    for _ in movers:
        colors.append(_contrasting_color(rng, colors))
        looks.append((colors[-1], rng.uniform(0, 2 * np.pi), int(rng.integers(2**31))))
    for frame in range(frames):
        canvas, there = ground, []
        for index, (mover, (color, angle, seed)) in enumerate(zip(movers, looks)):
            centre = mover.centre(frame)
            if not (mover.first <= frame <= mover.last):
                continue
            depth = _depth(mover.name, x - centre[0], y - centre[1], mover.side * unit, angle)
            canvas = _paint(np.random.default_rng(seed), canvas, depth, color, mover.side * unit, unit)
            rows, columns = np.nonzero(depth >= 0)
            if len(rows) and 0 <= centre[0] < size and 0 <= centre[1] < size:
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                there.append((index, IDS[mover.name], [float(edge) for edge in box]))
        pixels = np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
        yield Image.fromarray(np.ascontiguousarray(pixels)), there
