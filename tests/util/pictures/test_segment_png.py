"""Segment ids as colours and back, in memory and in a PNG file."""

import io

import numpy as np
from PIL import Image

from util.pictures.segment_png import colors_to_ids, encode_png, ids_to_colors


def random_ids() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 2**24, (5, 7))


def test_each_byte_has_its_channel():
    ids = np.array([[1, 256, 65536], [0, 2**24 - 1, 3 + 5 * 256 + 7 * 65536]])
    colors = ids_to_colors(ids)
    assert colors.dtype == np.uint8
    assert colors.tolist() == [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 0], [255, 255, 255], [3, 5, 7]]]


def test_colours_with_or_without_alpha_give_back_the_ids():
    ids = random_ids()
    colors = ids_to_colors(ids)
    assert (colors_to_ids(colors) == ids).all()
    alpha = np.concatenate([colors, np.full((5, 7, 1), 255, np.uint8)], axis=-1)
    assert (colors_to_ids(alpha) == ids).all()


def test_a_png_file_holds_the_colours_of_the_ids():
    ids = random_ids()
    with Image.open(io.BytesIO(encode_png(ids))) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert (np.asarray(image) == ids_to_colors(ids)).all()
