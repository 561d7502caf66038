"""An image with its objects, and again with its detections, coloured by what is right and wrong about them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from datasets.image_decoding import read_image
from util.pictures.boxes import Color, draw_boxes

COLORS: dict[str, Color] = {
    "correct": (46, 160, 67),
    "missed": (226, 40, 40),
    "invented": (190, 70, 230),
    "mislabelled": (255, 160, 20),
    "misplaced": (50, 130, 255),
    "crowd": (140, 140, 140),
}
KINDS = {
    "correct": "correct",
    "classification": "mislabelled",
    "both": "mislabelled",
    "localisation": "misplaced",
    "duplicate": "invented",
    "background": "invented",
}


def draw_errors(
    folder: Path, picture: Mapping[str, Any], names: Mapping[int, str], side: int
) -> tuple[Image.Image, Image.Image] | None:
    """The image with its objects, and with its detections; None if the file cannot be read.

    Args:
        folder: what the file's name is relative to.
        picture: an entry of `pictures` in `eval/errors.json`.
        names: of the classes, by their place there.
        side: pixels of the longer side of the result.
    """
    size = (picture["width"] or 0, picture["height"] or 0)
    try:
        image = read_image(Path(folder) / picture["file_name"], size if all(size) else None)
    except (OSError, TypeError, ValueError):
        return None
    scale = side / max(image.size)
    image = image.resize([max(1, round(length * scale)) for length in image.size], Image.Resampling.BILINEAR)
    about: dict[int, str] = {}  # object → what the best detection about it is
    for one in reversed(picture["detections"]):
        if one["object"] is not None:
            about[one["object"]] = KINDS.get(one["kind"], "invented")
    truth, labels, colors = [], [], []
    for place, one in enumerate(picture["objects"]):
        truth.append(_corners(one["box"], scale))
        labels.append(names[one["class"]])
        state = "correct" if one["found"] else "missed" if one["missed"] else about.get(place, "missed")
        colors.append(COLORS["crowd" if one["crowd"] else state])
    found = picture["detections"]
    return (
        draw_boxes(image, truth, labels, colors, min_side=0),
        draw_boxes(
            image,
            [_corners(one["box"], scale) for one in found],
            [f"{names[one['class']]} {one['score']:.0%}" for one in found],
            [COLORS[KINDS.get(one["kind"], "invented")] for one in found],
            min_side=0,
        ),
    )


def _corners(box: list[float], scale: float) -> list[float]:
    x, y, width, height = box
    return [x * scale, y * scale, (x + max(width, 0)) * scale, (y + max(height, 0)) * scale]
