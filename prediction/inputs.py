"""Pictures as people hand them over → RGB, upright, 8 bits a channel; nothing is known of them but themselves."""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.images import ORIENTATION, TURN, read_image, to_rgb

Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor


def to_picture(image: Picture) -> Image.Image:
    """Anything that `Predictor` takes → RGB.

    Raises:
        OSError: a file cannot be read, by its name.
        ValueError: an array or tensor of another kind.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, Tensor):
        if image.ndim == 3 and len(image) == 3 and image.is_floating_point():
            if not (image.isfinite().all() and 0 <= image.min() and image.max() <= 1):
                raise ValueError("a tensor of floats holds colours from 0 to 1, not normalised: this one goes beyond")
            image = (image * 255).round().to(torch.uint8)
        if image.ndim != 3 or len(image) != 3 or image.dtype != torch.uint8:
            raise ValueError(f"an image's tensor is [3, H, W] of uint8 or floats, not {_kind(image)}")
        image = image.permute(1, 2, 0).cpu().numpy()
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image's array is [H, W, 3] of uint8, RGB, not {_kind(image)}")
        return Image.fromarray(np.ascontiguousarray(image))
    return read_picture(image)


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """An image file as people see it: RGB, upright by its EXIF tag.

    Raises:
        OSError: it cannot be read, by its name.
    """
    try:
        image = read_image(path)
        with Image.open(path) as header:
            tag = _orientation(header)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image file {path}") from None
    except OSError as error:
        cause = getattr(error.__cause__, "strerror", None) or error.__cause__ or error
        raise OSError(f"image file {path} cannot be read ({cause})") from error
    return image.transpose(TURN[tag]) if tag in TURN else image


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # damaged, which surfaces as almost any type; the pixels beside it are whole
        return None


def _kind(image: np.ndarray | Tensor) -> str:
    return f"{list(image.shape)} of {str(image.dtype).removeprefix('torch.')}"
