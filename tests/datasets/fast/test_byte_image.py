"""ByteImage gives Pillow's sizes and pixels."""

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.Image import Resampling, Transpose

from datasets import pixels
from datasets.fast.byte_image import ByteImage

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(width, height, seed=0):
    """Pixels of 0 and 255 alone, between which rounding errors are largest."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 2, (height, width, 3)).astype(np.uint8) * 255)


def rgb(image):
    return image.pixels[..., :3].numpy()


def test_pixels_are_those_of_the_pil_image():
    image = picture(7, 5)
    assert ByteImage.of(image).size == (7, 5)
    assert np.array_equal(rgb(ByteImage.of(image)), np.asarray(image))


@pytest.mark.parametrize("size", [(60, 45), (31, 70), (90, 90), (1, 1), (200, 3)])
@pytest.mark.parametrize("source", [(64, 48), (1, 1), (1, 40), (120, 3), (37, 91)])
def test_resized_pixels_are_within_2_of_pillows(source, size):
    image = picture(*source)
    expected = np.asarray(image.resize(size, Resampling.BILINEAR)).astype(int)
    resized = ByteImage.of(image).resize(size, Resampling.BILINEAR)
    assert resized.size == size
    assert np.abs(rgb(resized) - expected).max() <= 2


def test_a_crop_is_pillows_and_is_resized_like_it():
    image, box = picture(40, 30), (3, 5, 33, 28)
    cropped = ByteImage.of(image).crop(box)
    assert np.array_equal(rgb(cropped), np.asarray(image.crop(box)))
    resized = rgb(cropped.resize((50, 20), Resampling.BILINEAR)).astype(int)
    assert np.abs(resized - np.asarray(image.crop(box).resize((50, 20), Resampling.BILINEAR))).max() <= 2


def test_the_mirror_image_is_pillows():
    image = picture(9, 4)
    mirrored = ByteImage.of(image).transpose(Transpose.FLIP_LEFT_RIGHT)
    assert np.array_equal(rgb(mirrored), np.asarray(image.transpose(Transpose.FLIP_LEFT_RIGHT)))


def test_normalised_pixels_are_the_plain_forms():
    image = picture(9, 4)
    normalized = ByteImage.of(image).normalized(MEAN, STD)
    assert normalized.is_contiguous()
    torch.testing.assert_close(normalized, pixels.normalize(pixels.to_tensor(image), MEAN, STD))


@pytest.mark.parametrize("box", [(-1, 0, 3, 3), (0, 0, 8, 3), (0, 2, 3, 6), (3, 0, 3, 3)])
def test_a_crop_that_is_not_inside_is_refused(box):
    with pytest.raises(ValueError, match="is not inside an image of 7x5 pixels"):
        ByteImage.of(picture(7, 5)).crop(box)


def test_other_filters_and_turns_are_refused():
    image = ByteImage.of(picture(7, 5))
    with pytest.raises(ValueError, match="only BILINEAR"):
        image.resize((3, 3), Resampling.NEAREST)
    with pytest.raises(ValueError, match="only FLIP_LEFT_RIGHT"):
        image.transpose(Transpose.ROTATE_90)
