"""The tiles of a picture: one size, covering it, with the asked overlap."""

import math

import numpy as np
import pytest

from prediction.slicing.tiles import shared_by, tiles_of


@pytest.mark.parametrize("size", [(4000, 3000), (801, 1601), (2000, 800), (1234, 5678)])
@pytest.mark.parametrize("overlap", [0, 0.2, 0.55])
def test_tiles_have_one_size_cover_the_picture_and_overlap(size, overlap):
    tiles = tiles_of(size, 800, overlap)
    seen = np.zeros((size[1], size[0]), dtype=bool)
    for left, top, right, bottom in tiles:
        assert (right - left, bottom - top) == (min(800, size[0]), min(800, size[1]))
        assert left >= 0 and top >= 0 and right <= size[0] and bottom <= size[1]
        seen[top:bottom, left:right] = True
    assert seen.all() and len(set(tiles)) == len(tiles)
    assert all(shared >= 800 * overlap for shared in shared_by(tiles))


def test_a_picture_of_4000_by_3000_takes_30_tiles():
    assert len(tiles_of((4000, 3000), 800, 0.2)) == 30


def test_a_picture_not_larger_than_a_tile_is_one_tile():
    assert tiles_of((800, 500), 800, 0.2) == [(0, 0, 800, 500)]
    assert shared_by([(0, 0, 800, 500)]) == (math.inf, math.inf)


@pytest.mark.parametrize(("side", "overlap", "named"), [(0, 0.2, "--slice"), (800, 1, "--overlap"), (800, -1, "--o")])
def test_what_makes_no_tiles_is_refused(side, overlap, named):
    with pytest.raises(ValueError, match=named):
        tiles_of((100, 100), side, overlap)
