"""Random changes of an image's colours, as one matrix.

Brightness, contrast, saturation and hue all change colours linearly, so that one matrix holds them: the image is read
once, and rounded once.
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
from PIL.Image import Image

from datasets.fast.byte_image import ByteImage

LUMA = np.array([0.299, 0.587, 0.114])  # the brightness of red, green and blue
HUE = 0.1  # of a turn, at strength 1
_TO_YIQ = np.array([LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])


class ColorJitter:
    """Multiply brightness, contrast and saturation by factors in 1 ± `strength`, and turn the hue.

    The hue turns by up to `HUE` · `strength` of a turn: by 7° at strength 0.2, where red stays red. Contrast is that to
    the image's mean brightness. Four numbers are drawn from Python's `random`. Boxes do not change.

    Args:
        strength: in (0, 1].
    """

    def __init__(self, strength: float):
        self.strength = strength

    def __call__(self, img: Image | ByteImage, target: Any) -> tuple[Image | ByteImage, Any]:
        low, high = 1 - self.strength, 1 + self.strength
        brightness, contrast, saturation = (random.uniform(low, high) for _ in range(3))
        turn = random.uniform(-1, 1) * self.strength * HUE
        return recolor(img, brightness=brightness, contrast=contrast, saturation=saturation, turn=turn), target

    def __repr__(self) -> str:
        return f"ColorJitter({self.strength:g})"


def recolor(
    image: Image | ByteImage, *, brightness: float = 1, contrast: float = 1, saturation: float = 1, turn: float = 0
) -> Image | ByteImage:
    """The image with hue, saturation, contrast and brightness changed, in this order.

    Args:
        image: RGB; any other mode is converted.
        brightness, contrast, saturation: factors; 1 changes nothing.
        turn: of the hue, in turns.
    """
    if not isinstance(image, ByteImage) and image.mode != "RGB":
        image = image.convert("RGB")
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    hue = np.linalg.inv(_TO_YIQ) @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _TO_YIQ
    matrix = (saturation * np.eye(3) + (1 - saturation) * LUMA) @ hue  # [3, 3], keeps the brightness of each pixel
    offset = (1 - contrast) * float(LUMA @ _mean(image))  # of 255
    matrix = brightness * np.concatenate([contrast * matrix, np.full((3, 1), offset)], axis=1)  # [3, 4]
    if isinstance(image, ByteImage):
        return image.recolored(matrix)
    return image.convert("RGB", tuple(matrix.ravel().tolist()))


def _mean(image: Image | ByteImage) -> np.ndarray:
    """Of red, green and blue, 0..255."""
    if isinstance(image, ByteImage):
        return image.pixels[..., :3].sum(dim=(0, 1)).numpy() / (image.width * image.height)
    return np.asarray(image).sum(axis=(0, 1), dtype=np.int64) / (image.width * image.height)
