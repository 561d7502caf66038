"""Drawn large scenes of small shapes, at the scale at which tiles of `TILE` pixels look like the pictures of the data
set.
"""

import numpy as np
from PIL import Image

from datasets.shapes import THINGS, _contrasting_color, _depth, _draw_ground, _paint

TILE = 800
UNIT = TILE / 96  # pixels of the scene for one of the data set's


def draw_wide_scene(
    size: tuple[int, int] = (4000, 3000), cell: int = 500, seed: int = 0, sides: tuple[float, float] = (17, 24)
) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """One shape in each cell of a grid, at a random place in it.

    Returns:
        The picture of `size` = (w, h), the boxes [n, 4] xyxy and the category ids [n].
    """
    rng = np.random.default_rng(seed)
    width, height = size
    coarse = int(np.ceil(max(size) / UNIT))
    y, x = np.mgrid[:coarse, :coarse].astype(np.float32) + 0.5
    ground, _, colors = _draw_ground(rng, x, y, 1.0)
    planes = [np.asarray(Image.fromarray(p).resize((max(size),) * 2, Image.Resampling.BILINEAR)) for p in ground]
    canvas = np.stack(planes)[:, :height, :width].astype(np.float32)  # [3, H, W]
    boxes, labels = [], []
    for top in range(0, height - cell + 1, cell):
        for left in range(0, width - cell + 1, cell):
            category, side = THINGS[rng.integers(len(THINGS))], rng.uniform(*sides) * UNIT
            margin = 0.62 * side
            centre = rng.uniform(margin, cell - margin, 2)
            y, x = np.mgrid[:cell, :cell].astype(np.float32) + 0.5
            depth = _depth(category["name"], x - centre[0], y - centre[1], side, rng.uniform(0, 2 * np.pi))
            place = np.s_[:, top : top + cell, left : left + cell]
            canvas[place] = _paint(rng, canvas[place], depth, _contrasting_color(rng, colors), side, UNIT)
            rows, columns = np.nonzero(depth >= 0)
            boxes.append((left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1))
            labels.append(category["id"])
    pixels = np.clip(canvas.transpose(1, 2, 0) * 255 + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels)), np.array(boxes, dtype=np.float32), np.array(labels)
