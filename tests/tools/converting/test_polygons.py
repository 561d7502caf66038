"""Several polygons as one: the area stays."""

from datasets.annotations.masks import segmentation_to_mask
from tools.converting.polygons import joined


def test_joined_polygons_cover_the_same_pixels():
    polygons = [[2, 2, 12, 2, 12, 12, 2, 12], [20, 4, 30, 4, 30, 20, 20, 20], [5, 25, 15, 25, 10, 35]]
    one = segmentation_to_mask([joined(polygons)], 40, 40)
    several = segmentation_to_mask(polygons, 40, 40)
    assert (one != several).sum() <= several.sum() * 0.02  # the pixels that the bridges run through
    assert one[several].all()


def test_one_polygon_stays():
    assert joined([[1, 2, 3, 4, 5, 6]]) == [1, 2, 3, 4, 5, 6]
