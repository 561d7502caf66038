"""`ByteImage`: a PIL image's fast form.

Pillow resizes without vector instructions. torch resizes bytes by the same algorithm, with weights of 16 bits instead
of 22, so that a result may differ by 1 of 255, hardly ever by 2. It is fastest with four bytes a pixel, which is also
how Pillow stores RGB.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL.Image import Image, Resampling, Transpose
from torch import Tensor
from torch.nn.functional import interpolate


class ByteImage:
    """An RGB image with the methods of a PIL image that the flips, resizes and crops of `datasets.transforms` call.

    Args:
        pixels: uint8 [h, w, 4]: red, green, blue and one that is not used.
    """

    def __init__(self, pixels: Tensor):
        self.pixels = pixels

    @classmethod
    def of(cls, image: Image) -> ByteImage:
        """A copy of a PIL image of mode RGB."""
        pixels = torch.frombuffer(bytearray(image.tobytes("raw", "RGBX")), dtype=torch.uint8)
        return cls(pixels.view(image.height, image.width, 4))

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(w, h) in pixels."""
        return self.width, self.height

    def crop(self, box: tuple[int, int, int, int]) -> ByteImage:
        """The region (left, top, right, bottom); ValueError unless it lies inside the image."""
        left, top, right, bottom = box
        if not (0 <= left < right <= self.width and 0 <= top < bottom <= self.height):
            raise ValueError(f"the region {box} is not inside an image of {self.width}x{self.height} pixels")
        return ByteImage(self.pixels[top:bottom, left:right])

    def transpose(self, method: Transpose) -> ByteImage:
        """The mirror image; `method` must be FLIP_LEFT_RIGHT."""
        if method is not Transpose.FLIP_LEFT_RIGHT:
            raise ValueError(f"only FLIP_LEFT_RIGHT is supported, got {method!r}")
        return ByteImage(self.pixels.flip(1))

    def resize(self, size: tuple[int, int], resample: Resampling) -> ByteImage:
        """The image at `size` = (w, h), within 2 of 255 of Pillow's; `resample` must be BILINEAR."""
        if resample is not Resampling.BILINEAR:
            raise ValueError(f"only BILINEAR is supported, got {resample!r}")
        # A batch in channels-last order, by its strides too, is resized as it lies in memory.
        batch = self.pixels.contiguous()[None].permute(0, 3, 1, 2)  # [1, 4, h, w]
        resized = interpolate(batch, size=size[::-1], mode="bilinear", antialias=True)
        return ByteImage(resized[0].permute(1, 2, 0))

    def recolored(self, matrix: np.ndarray) -> ByteImage:
        """The image with each colour multiplied by `matrix`, [3, 4] with an offset of 0..255 as the last column."""
        weights = torch.tensor(matrix, dtype=torch.float32)
        colors = self.pixels[..., :3].float() @ weights[:, :3].T + (weights[:, 3] + 0.5)  # [h, w, 3]
        pixels = torch.empty((self.height, self.width, 4), dtype=torch.uint8)
        pixels[..., :3] = colors.clamp_(0, 255)
        return ByteImage(pixels)

    def normalized(self, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """float32 [3, h, w]: the image in 0..1, minus `mean`, divided by `std`, by channel."""
        planes = torch.empty((3, self.height, self.width), dtype=torch.get_default_dtype())
        planes.copy_(self.pixels.permute(2, 0, 1)[:3])
        mean, std = (255 * torch.as_tensor(value, dtype=planes.dtype)[:, None, None] for value in (mean, std))
        return planes.sub_(mean).div_(std)
