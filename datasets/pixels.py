"""What the transforms do with pixels, by Pillow and torch: the same bits and the same draws as torchvision's functions.

The import of torchvision takes as long as torch's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor


def random_region(image: Image, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) at a random position, drawn as torchvision's `RandomCrop` does.

    Raises:
        ValueError: the image is smaller.
    """
    if image.height < height or image.width < width:
        raise ValueError(
            f"a crop of {width}x{height} pixels does not fit into an image of {image.width}x{image.height}"
        )
    if (image.height, image.width) == (height, width):
        return 0, 0, height, width
    top = int(torch.randint(0, image.height - height + 1, size=(1,)))
    left = int(torch.randint(0, image.width - width + 1, size=(1,)))
    return top, left, height, width


def crop_masks(masks: Tensor, region: tuple[int, int, int, int]) -> Tensor:
    """Masks [n, h, w] cropped to `region` = (top, left, height, width); outside the image there is nothing."""
    top, left, height, width = region
    inside = masks[:, max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    if inside.shape[1:] == (height, width):
        return inside
    cropped = masks.new_zeros((len(masks), height, width))
    y, x = max(-top, 0), max(-left, 0)
    cropped[:, y : y + inside.shape[1], x : x + inside.shape[2]] = inside
    return cropped


def to_tensor(image: Image) -> Tensor:
    """An image as float32 [3, h, w] in 0..1; of other modes [C, h, w], where numbers that are not bytes are kept."""
    pixels = np.array(image)  # a copy
    pixels = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()
    return pixels.to(torch.get_default_dtype()).div_(255) if pixels.dtype == torch.uint8 else pixels


def normalize(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(image - mean) / std by channel, for an image [C, h, w]."""
    mean, std = (torch.as_tensor(v, dtype=image.dtype, device=image.device)[:, None, None] for v in (mean, std))
    return image.sub(mean).div_(std)
