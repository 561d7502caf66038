"""An image as a user passes it (path, PIL image, array, tensor) → an upright 8-bit RGB image."""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.image_decoding import ORIENTATION, TURN, read_image, to_rgb

ImageInput = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor


def to_upright_rgb(image: ImageInput) -> Image.Image:
    """Convert any input of `Predictor` to RGB. Only files are rotated: PIL images and arrays are taken as they are.

    Raises:
        OSError: a file cannot be read; the message names it.
        ValueError: an array or tensor of another shape or type.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, Tensor):
        if image.ndim == 3 and len(image) == 3 and image.is_floating_point():
            if not (image.isfinite().all() and 0 <= image.min() and image.max() <= 1):
                raise ValueError("a float image tensor must hold colours in [0, 1], not normalised ones")
            image = (image * 255).round().to(torch.uint8)
        if image.ndim != 3 or len(image) != 3 or image.dtype != torch.uint8:
            raise ValueError(f"an image tensor must be [3, H, W] of uint8 or floats, got {_shape_and_type(image)}")
        image = image.permute(1, 2, 0).cpu().numpy()
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image array must be [H, W, 3] of uint8, RGB, got {_shape_and_type(image)}")
        return Image.fromarray(np.ascontiguousarray(image))
    return read_upright_rgb(image)


def read_upright_rgb(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file as RGB, rotated as its EXIF tag says.

    Raises:
        OSError: the file cannot be read; the message names it.
    """
    try:
        image = read_image(path)
        with Image.open(path) as header:
            tag = _orientation(header)
    except FileNotFoundError:
        raise FileNotFoundError(f"image file {path} does not exist") from None
    except OSError as error:
        cause = getattr(error.__cause__, "strerror", None) or error.__cause__ or error
        raise OSError(f"image file {path} cannot be read ({cause})") from error
    return image.transpose(TURN[tag]) if tag in TURN else image


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # a damaged EXIF block can raise almost any type; the pixels are intact
        return None


def _shape_and_type(image: np.ndarray | Tensor) -> str:
    return f"{list(image.shape)} of {str(image.dtype).removeprefix('torch.')}"
