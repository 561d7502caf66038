"""Ids as colours and back."""

import numpy as np

from util.pictures.segment_colors import colors_to_ids, ids_to_colors


def test_each_byte_has_its_channel():
    ids = np.array([[1, 256, 65536], [0, 2**24 - 1, 3 + 5 * 256 + 7 * 65536]])
    colors = ids_to_colors(ids)
    assert colors.dtype == np.uint8
    assert colors.tolist() == [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 0], [255, 255, 255], [3, 5, 7]]]


def test_colours_are_read_back_also_where_they_have_an_alpha():
    ids = np.random.RandomState(0).randint(0, 2**24, (5, 7))
    colors = ids_to_colors(ids)
    assert (colors_to_ids(colors) == ids).all()
    alpha = np.concatenate([colors, np.full((5, 7, 1), 255, np.uint8)], axis=-1)
    assert (colors_to_ids(alpha) == ids).all()
