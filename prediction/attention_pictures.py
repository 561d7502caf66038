"""Pictures of attention: the image is bright where the detector looked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from prediction.result import Prediction
from util.pictures.boxes import PAPER, color_of, contact_sheet, draw_boxes, side_by_side

SIDE = 448  # the longer side of a panel, in pixels
MAX_DETECTIONS = 8  # panels of detections
DEFAULT_POINTS = 3  # points if none are given


def heat_over(image: Image.Image, weights: Tensor) -> Image.Image:
    """The image, dark where `weights` [h, w] are low and bright where they are high; their cells cover it evenly."""
    import matplotlib

    values = weights.detach().cpu().float().numpy()
    peak = float(values.max())
    heat = Image.fromarray(values / peak if peak > 0 else values).resize(image.size, Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(heat), 0, 1)  # [H, W]
    glow = matplotlib.colormaps["inferno"](strength)[..., :3] * 255  # [H, W, 3]
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None]
    return Image.fromarray(np.clip(0.45 * grey + 0.75 * glow, 0, 255).astype(np.uint8))


def attention_sheet(
    prediction: Prediction, decoder: Tensor, encoder: Tensor, points: Sequence[tuple[float, float]] = ()
) -> Image.Image:
    """One sheet: the detections, where the query of each of the best ones looked, and where some points looked.

    Args:
        prediction: the detections.
        decoder: attention of each query over the image [Q, h, w].
        encoder: attention of each position over the image [h, w, h, w].
        points: (x, y) in pixels of the image; by default the centres of the best boxes.

    Raises:
        ValueError: a point outside the image.
    """
    width, height = prediction.image.size
    scale = SIDE / max(width, height)
    small_size = max(1, round(width * scale)), max(1, round(height * scale))
    small = prediction.image.resize(small_size, Image.Resampling.LANCZOS)
    boxes = prediction.boxes * scale
    panels = [("found", prediction.resized(small).draw(min_side=0))]
    for index in range(min(len(prediction), MAX_DETECTIONS)):
        heat = heat_over(small, decoder[int(prediction.queries[index])])
        color = color_of(int(prediction.labels[index]))
        title = f"{prediction.names[index]} {prediction.scores[index]:.0%}"
        panels.append((title, draw_boxes(heat, boxes[index : index + 1], colors=[color], min_side=0)))
    rows, columns = encoder.shape[:2]
    for x, y in points or _centres(prediction):
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"point {x:g},{y:g} is outside the image, which has {width}x{height} pixels")
        heat = heat_over(small, encoder[int(y * rows / height), int(x * columns / width)])
        _mark(heat, x * scale, y * scale)
        panels.append((f"point {x:.0f}, {y:.0f}", heat))
    return contact_sheet([side_by_side([panel]) for panel in panels], columns=4 if len(panels) > 6 else 3)


def _centres(prediction: Prediction) -> list[tuple[float, float]]:
    """The centres of the best boxes, moved onto the image where they lie outside."""
    width, height = prediction.image.size
    best = prediction.boxes[:DEFAULT_POINTS]
    centres = (best[:, :2] + best[:, 2:]) / 2
    return [(min(max(x, 0), width - 1), min(max(y, 0), height - 1)) for x, y in centres.tolist()]


def _mark(picture: Image.Image, x: float, y: float) -> None:
    draw = ImageDraw.Draw(picture)
    draw.ellipse((x - 6, y - 6, x + 6, y + 6), outline=(0, 0, 0), width=5)
    draw.ellipse((x - 5, y - 5, x + 5, y + 5), outline=PAPER, width=2)
