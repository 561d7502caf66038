"""Drawn large scenes of small shapes, at the scale at which tiles of `TILE` pixels look like the pictures of the data
set.
"""

import numpy as np
from PIL import Image

from datasets.shapes import THINGS, contrasting_color, draw_ground, paint_object, signed_distance

TILE = 800
UNIT = TILE / 96  # pixels of the scene for one of the data set's


Scene = tuple[Image.Image, np.ndarray, np.ndarray]  # picture, boxes [n, 4] xyxy, category ids [n]
MIXED = ((3, (700, 1200)), (4, (350, 600)), (14, (140, 200)))  # how many shapes with sides from and to so many pixels


def draw_wide_scene(
    size: tuple[int, int] = (4000, 3000), cell: int = 500, seed: int = 0, sides: tuple[float, float] = (17, 24)
) -> Scene:
    """One shape in each cell of a grid, at a random place in it; its side is in pixels of the data set's pictures.

    Returns:
        The picture of `size` = (w, h), the boxes [n, 4] xyxy and the category ids [n].
    """
    rng = np.random.default_rng(seed)
    canvas, colors = _ground(rng, size)
    found = []
    for top in range(0, size[1] - cell + 1, cell):
        for left in range(0, size[0] - cell + 1, cell):
            category, side = THINGS[rng.integers(len(THINGS))], rng.uniform(*sides) * UNIT
            centre = np.array((left, top)) + rng.uniform(0.62 * side, cell - 0.62 * side, 2)
            found.append(_shape(rng, canvas, colors, category, centre, side))
    return _scene(canvas, found)


def draw_mixed_scene(size: tuple[int, int] = (4000, 3000), seed: int = 0) -> Scene:
    """Large, medium and small shapes (`MIXED`) that do not touch; those without a place are left out. See
    `draw_wide_scene`.
    """
    rng = np.random.default_rng(seed)
    canvas, colors = _ground(rng, size)
    found, taken = [], np.zeros((0, 3))  # centre and radius of each shape
    for side in (rng.uniform(*sides) for number, sides in MIXED for _ in range(number)):
        category, radius = THINGS[rng.integers(len(THINGS))], 0.8 * side
        for centre in rng.uniform(radius, np.array(size) - radius, (200, 2)):
            if (np.linalg.norm(taken[:, :2] - centre, axis=1) > taken[:, 2] + radius).all():
                found.append(_shape(rng, canvas, colors, category, centre, side))
                taken = np.concatenate([taken, [[*centre, radius]]])
                break
    return _scene(canvas, found)


def _ground(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, list]:
    """A canvas [3, H, W] in [0, 1], and its colours."""
    coarse = int(np.ceil(max(size) / UNIT))
    y, x = np.mgrid[:coarse, :coarse].astype(np.float32) + 0.5
    ground, _, colors = draw_ground(rng, x, y, 1.0)
    planes = [np.asarray(Image.fromarray(p).resize((max(size),) * 2, Image.Resampling.BILINEAR)) for p in ground]
    return np.stack(planes)[:, : size[1], : size[0]].astype(np.float32), colors


def _shape(
    rng: np.random.Generator, canvas: np.ndarray, colors: list, category: dict, centre: np.ndarray, side: float
) -> tuple[tuple[int, int, int, int], int]:
    """Paint a shape onto the canvas [3, H, W], in place; returns its box, xyxy, and category id."""
    reach = np.full(2, 0.85 * side + 5 * UNIT)
    left, top = np.maximum(centre - reach, 0).astype(int)
    right, bottom = np.minimum(centre + reach, canvas.shape[:0:-1]).astype(int)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32) + 0.5
    depth = signed_distance(category["name"], x - centre[0], y - centre[1], side, rng.uniform(0, 2 * np.pi))
    place = np.s_[:, top:bottom, left:right]
    canvas[place] = paint_object(rng, canvas[place], depth, contrasting_color(rng, colors), side, UNIT)
    rows, columns = np.nonzero(depth >= 0)
    box = left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1
    return box, category["id"]


def _scene(canvas: np.ndarray, found: list) -> Scene:
    pixels = np.clip(canvas.transpose(1, 2, 0) * 255 + 0.5, 0, 255).astype(np.uint8)
    boxes, labels = zip(*found)
    return Image.fromarray(np.ascontiguousarray(pixels)), np.array(boxes, dtype=np.float32), np.array(labels)
