"""Segmentations become masks; those that would crash pycocotools are rejected first."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from datasets.annotations.masks import segmentation_to_mask, segmentation_to_rle

HEIGHT, WIDTH = 30, 40


def noise(seed):
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) < (0.02, 0.5, 0.98)[seed % 3]


@pytest.mark.parametrize("seed", range(9))
def test_compressed_codes_are_read_as_pycocotools_reads_them(seed):
    mask = noise(seed)
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    np.testing.assert_array_equal(segmentation_to_mask(code, HEIGHT, WIDTH), mask)
    as_json = {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()}
    np.testing.assert_array_equal(segmentation_to_mask(as_json, HEIGHT, WIDTH), mask)


@pytest.mark.parametrize("seed", range(3))
def test_plain_codes_are_read_as_pycocotools_reads_them(seed):
    mask = noise(seed)
    mask[0, 0] = seed == 1  # an object at the first pixel gives a code that begins with 0
    runs = np.diff(np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False, append=~mask[-1, -1])), prepend=0)
    code = {"size": [HEIGHT, WIDTH], "counts": runs.tolist()}
    np.testing.assert_array_equal(segmentation_to_mask(code, HEIGHT, WIDTH), mask)
    theirs = coco_mask.decode(coco_mask.frPyObjects(code, HEIGHT, WIDTH))
    np.testing.assert_array_equal(theirs.astype(bool), mask)


@pytest.mark.parametrize("seed", range(5))
def test_polygons_are_drawn_as_published_and_the_code_is_that_of_the_mask(seed):
    points = np.random.default_rng(seed).uniform(-5, 45, (3, 2 * (3 + seed))).round(2).tolist()
    parts = coco_mask.decode(coco_mask.frPyObjects(points, HEIGHT, WIDTH))  # [h, w, 3], as in the published loader
    mask = segmentation_to_mask(points, HEIGHT, WIDTH)
    np.testing.assert_array_equal(mask, parts.any(axis=2))
    code = segmentation_to_rle(points, HEIGHT, WIDTH)
    assert code["size"] == [HEIGHT, WIDTH] and isinstance(code["counts"], str)
    np.testing.assert_array_equal(coco_mask.decode(code), mask)


def test_a_polygon_of_fewer_than_three_points_leaves_the_others_as_they_are():
    square = [10, 10, 20, 10, 20, 20, 10, 20]
    whole = segmentation_to_mask([square], HEIGHT, WIDTH)
    assert whole.sum() == 100
    for thin in ([], [1, 2], [10, 10, 10, 15]):
        np.testing.assert_array_equal(segmentation_to_mask([thin, square], HEIGHT, WIDTH), whole)


NAN, INF = float("nan"), float("inf")
SIZE = {"size": [HEIGHT, WIDTH]}


@pytest.mark.parametrize(
    ("segmentation", "sentence"),
    [
        (None, "neither a list of polygons nor"),
        ("abc", "neither a list of polygons nor"),
        (7, "neither a list of polygons nor"),
        ([1, 2, 3, 4, 5, 6], "not a list of numbers"),
        (["123456"], "not a list of numbers"),
        ([["a", 1, 2, 3, 4, 5]], "not a list of numbers"),
        ([[[1, 2], [3, 4], [5, 6]]], "not a list of numbers"),
        ([{"size": [1, 1]}], "not a list of numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers"),
        ([[0, 0, 99_999, 0, 0, 1, 99_999, 1] * 20], "edges are longer than 2000000 pixels"),
        (SIZE | {"counts": "PPP"}, "ends inside a number"),
        ([[NAN, 1, 2, 3, 4, 5]], "corner that is NaN"),  # pycocotools crashes on these three
        ([[1e9, 1, 2, 3, 4, 5]], "far outside"),
        ([[1, 1, 2, 3, 4, -INF]], "infinite"),
        ([[10**400, 1, 2, 3, 4, 5]], "far outside"),
        ({}, "a mask of .h, w. = None"),
        ({"size": 30, "counts": [1200]}, "a mask of .h, w. = 30"),
        ({"size": "x" * 10**5, "counts": [1200]}, "a mask of .h, w. = x{59}… on"),
        ({"size": [40, 30], "counts": [1200]}, r"a mask of \(h, w\) = \(40, 30\) on an image of \(30, 40\)"),
        (SIZE, "counts are not non-negative integers"),
        (SIZE | {"counts": 1200}, "counts are not non-negative integers"),
        (SIZE | {"counts": [600.0, 600.0]}, "counts are not non-negative integers"),
        (SIZE | {"counts": [1300, -100]}, "counts are not non-negative integers"),
        (SIZE | {"counts": [600, 500]}, "of 1100 pixels on an image of 1200"),  # pycocotools leaves the rest undefined
        (SIZE | {"counts": [10**30]}, "of 1000000000000000000000000000000 pixels on"),
        (SIZE | {"counts": ""}, "of 0 pixels on"),
        (SIZE | {"counts": "0"}, "of 0 pixels on"),
        (SIZE | {"counts": "é"}, "with invalid characters"),
        (SIZE | {"counts": b"\0\1"}, "with invalid characters"),
        (SIZE | {"counts": "o" * 10**4 + "1"}, "with invalid characters"),
    ],
)
def test_an_invalid_segmentation_is_rejected(segmentation, sentence):
    with pytest.raises(ValueError, match=sentence):
        segmentation_to_mask(segmentation, HEIGHT, WIDTH)


def test_points_and_lines_cover_nothing():
    for segmentation in ([], [[]], [[1, 2]], [[1, 2, 3, 4]]):
        assert not segmentation_to_mask(segmentation, HEIGHT, WIDTH).any()
