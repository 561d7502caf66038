"""An image as a user passes it (path, address, PIL image, array, tensor) → an upright 8-bit RGB image."""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.image_decoding import orientation, upright_rgb
from datasets.image_files import NOT_OPENED, open_image
from prediction.sources.address import picture_at
from util.loading.transfer import is_address
from util.settings import MAX_PIXELS
from util.text import printable

ImageInput = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
ACCEPTED = "a path, an http(s) address, a PIL image, a uint8 array [H, W, 3], or a tensor [3, H, W]"
RGB, BGR = "RGB", "BGR"


def to_upright_rgb(image: ImageInput, max_pixels: int = MAX_PIXELS, channels: str = RGB) -> Image.Image:
    """Convert any input of `Predictor` to RGB.

    A PIL image gives the same result as its file: an EXIF orientation that it still carries is applied. Arrays and
    tensors are taken as they are.

    Args:
        image: see `Predictor`.
        max_pixels: a file with more pixels is refused.
        channels: the order of the colours of arrays and tensors, "RGB" or OpenCV's "BGR".

    Raises:
        OSError: a file, an address or a PIL image cannot be read; the message names it.
        ValueError: an input of another kind, or an array or tensor of another shape or type.
    """
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, Tensor):
        return _from_pixels(_pixels_of(image), channels)
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"an image array must be [H, W, 3] of uint8, RGB, got {_shape_and_type(image)}")
        return _from_pixels(image, channels)
    if isinstance(image, str) and is_address(image):
        with picture_at(image) as path:
            return read_upright_rgb(path, max_pixels)
    if isinstance(image, str | os.PathLike) and isinstance(os.fspath(image), str):
        return read_upright_rgb(image, max_pixels)
    raise ValueError(f"an image must be {ACCEPTED}; got {_described(image)}")


def read_upright_rgb(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image file as RGB, turned as its EXIF tag says.

    Raises:
        OSError: the file cannot be read, or has more than `max_pixels`; the message names it.
    """
    with open_image(path, max_pixels) as image:
        return upright_rgb(image)


def upright_size(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(w, h) of the image that `read_upright_rgb` gives, from the header of the file.

    Raises:
        OSError: see `read_upright_rgb`.
    """
    with open_image(path, max_pixels) as image:
        is_turned = image.format != "TIFF" and orientation(image) in (5, 6, 7, 8)  # Pillow gives a TIFF's turned size
        return image.size[::-1] if is_turned else image.size


def check_channels(channels: str) -> None:
    """ValueError if it is no order of colours."""
    if channels not in (RGB, BGR):
        raise ValueError(f'channels must be "{RGB}" or "{BGR}", got {printable(repr(channels), 60)}')


def _from_pixels(pixels: np.ndarray, channels: str) -> Image.Image:
    """[H, W, 3] of uint8"""
    return Image.fromarray(np.ascontiguousarray(pixels[..., ::-1] if channels == BGR else pixels))


def _from_pil(image: Image.Image) -> Image.Image:
    name = printable(getattr(image, "filename", "") or "given as a PIL image")
    if not (image.width and image.height):
        raise ValueError(f"an image must have at least one pixel, got a PIL image of {image.width}x{image.height}")
    if image.format in NOT_OPENED and getattr(image, "tile", ()):  # loading it would start another program
        raise ValueError(f"the image {name} is of the format {image.format}, which is not decoded here: load it first")
    try:
        return upright_rgb(image)
    except Exception as error:  # PIL images are decoded here if they were only opened, and damaged ones raise any type
        cause = printable(getattr(error, "strerror", None) or str(error) or type(error).__name__, 500)
        raise OSError(f"the image {name} cannot be read ({cause})") from error


def _pixels_of(image: Tensor) -> np.ndarray:
    """uint8 [H, W, 3]"""
    if image.ndim == 3 and len(image) == 3 and image.is_floating_point() and image.numel():
        if not (image.isfinite().all() and 0 <= image.min() and image.max() <= 1):
            raise ValueError("a float image tensor must hold colours in [0, 1], not normalised ones")
        image = (image * 255).round().to(torch.uint8)
    if image.ndim != 3 or len(image) != 3 or image.dtype != torch.uint8 or not image.numel():
        raise ValueError(f"an image tensor must be [3, H, W] of uint8 or floats, got {_shape_and_type(image)}")
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())


def _shape_and_type(image: np.ndarray | Tensor) -> str:
    return f"{list(image.shape)} of {str(image.dtype).removeprefix('torch.')}"


def _described(image: object) -> str:
    """The type of a wrong input, and what to do instead; never the input itself, which may be of any length."""
    kind = type(image).__name__
    if isinstance(image, bytes | bytearray | memoryview):
        return f"{kind}: to pass the content of an image file, use PIL.Image.open(io.BytesIO(content))"
    if hasattr(image, "read"):
        return f"an open file ({kind}): use PIL.Image.open(file)"
    if hasattr(image, "__next__"):
        return f"an iterator ({kind}): pass it to the predictor itself, not inside a list"
    return f"an object of type {kind}"
