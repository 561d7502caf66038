"""Attention as pictures: an image that is bright where a detector looked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from prediction.result import Prediction
from util.pictures.boxes import PAPER, color_of, contact_sheet, draw_boxes, side_by_side

SIDE = 448  # pixels of a panel's longer side
MOST, MOST_POINTS = 8, 3  # panels of detections, and points where none are given


def heat_over(image: Image.Image, weights: Tensor) -> Image.Image:
    """The image, dark where `weights` [h, w] are low and glowing where they are highest; h·w equal cells cover it."""
    import matplotlib

    values = weights.detach().cpu().float().numpy()
    peak = float(values.max())
    heat = Image.fromarray(values / peak if peak > 0 else values).resize(image.size, Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(heat), 0, 1)  # [H, W]
    glow = matplotlib.colormaps["inferno"](strength)[..., :3] * 255  # [H, W, 3]
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None]
    return Image.fromarray(np.clip(0.45 * grey + 0.75 * glow, 0, 255).astype(np.uint8))


def attention_sheet(
    found: Prediction, decoder: Tensor, encoder: Tensor, points: Sequence[tuple[float, float]] = ()
) -> Image.Image:
    """What was found; then for each of the best detections where its query looked; then where some points looked.

    Args:
        found: the detections.
        decoder: attention of each query over the image [Q, h, w].
        encoder: attention of each place over the image [h, w, h, w].
        points: (x, y) in pixels of the image; without any, the middles of the best boxes.

    Raises:
        ValueError: a point outside of the image.
    """
    width, height = found.image.size
    scale = SIDE / max(width, height)
    small = found.image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
    boxes = found.boxes * scale
    panels = [("found", found.resized(small).draw(min_side=0))]
    for index in range(min(len(found), MOST)):
        heat = heat_over(small, decoder[int(found.queries[index])])
        color = color_of(int(found.labels[index]))
        title = f"{found.names[index]} {found.scores[index]:.0%}"
        panels.append((title, draw_boxes(heat, boxes[index : index + 1], colors=[color], min_side=0)))
    rows, columns = encoder.shape[:2]
    for x, y in points or _middles(found):
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"point {x:g},{y:g} is not on the image, which is {width}x{height} pixels")
        heat = heat_over(small, encoder[int(y * rows / height), int(x * columns / width)])
        _mark(heat, x * scale, y * scale)
        panels.append((f"point {x:.0f}, {y:.0f}", heat))
    return contact_sheet([side_by_side([panel]) for panel in panels], columns=4 if len(panels) > 6 else 3)


def _middles(found: Prediction) -> list[tuple[float, float]]:
    width, height = found.image.size
    middles = (found.boxes[:MOST_POINTS, :2] + found.boxes[:MOST_POINTS, 2:]) / 2
    return [(min(max(x, 0), width - 1), min(max(y, 0), height - 1)) for x, y in middles.tolist()]


def _mark(picture: Image.Image, x: float, y: float) -> None:
    pen = ImageDraw.Draw(picture)
    pen.ellipse((x - 6, y - 6, x + 6, y + 6), outline=(0, 0, 0), width=5)
    pen.ellipse((x - 5, y - 5, x + 5, y + 5), outline=PAPER, width=2)
