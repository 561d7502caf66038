"""Small objects in large pictures, found in tiles."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.drawn.wide_scenes import TILE, draw_wide_scene
from prediction.predictor import Predictor
from prediction.result import Prediction
from prediction.slicing.part import Part, confirmed
from prediction.slicing.predictor import SlicedPredictor
from tests.helpers.paths import REPOSITORY
from util.box_ops import box_iou


def recall(prediction: Prediction, boxes: np.ndarray, labels: np.ndarray) -> float:
    """The share of the true boxes of which a detection of their class has an IoU of 0.5 or more."""
    iou = box_iou(prediction.boxes, torch.from_numpy(boxes))[0]  # [n, m]
    same = prediction.labels[:, None] == torch.from_numpy(labels)
    return float(((iou >= 0.5) & same).any(0).float().mean())


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(REPOSITORY / "weights/detr_tiny_shapes.pth", "cpu")


def test_small_shapes_in_a_large_scene_are_found(predictor: Predictor):
    picture, boxes, labels = draw_wide_scene((4000, 3000))
    sliced = SlicedPredictor(predictor, TILE, 0.2)(picture)
    assert recall(sliced, boxes, labels) >= max(0.9, 1.5 * recall(predictor(picture), boxes, labels))
    assert len(sliced) < 1.2 * len(boxes)  # what two tiles show is one object
    assert sliced.scores.tolist() == sorted(sliced.scores.tolist(), reverse=True)
    assert sliced.image.size == picture.size and sliced.masks is None
    assert sliced.names == [predictor.names[label] for label in sliced.labels.tolist()]


def test_a_picture_not_larger_than_a_tile_gives_the_predictors_own_result(predictor: Predictor):
    picture, _, _ = draw_wide_scene((500, 500))
    own, sliced = predictor(picture), SlicedPredictor(predictor, 500)(picture)
    assert torch.equal(own.boxes, sliced.boxes) and torch.equal(own.scores, sliced.scores)


class Marks:
    """A predictor of white rectangles, each with its mask: what it sees of them in the image that it gets."""

    max_pixels, names = 10**9, {1: "mark"}

    def __call__(self, images, *, top_k=None, batch_size=8, **settings):
        assert len({image.size for image in images}) <= 1 and len(images) <= batch_size
        return [self.marks(image) for image in images]

    def marks(self, image: Image.Image) -> Prediction:
        pixels = np.asarray(image)[:, :, 0]
        masks = [pixels == value for value in np.unique(pixels) if value]
        places = [np.nonzero(mask) for mask in masks]
        boxes = torch.tensor([(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in places]).float().reshape(-1, 4)
        ones = torch.ones(len(masks), dtype=torch.int64)
        stacked = torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *pixels.shape, dtype=torch.bool)
        return Prediction(image, boxes, ones * 0.9, ones, ["mark"] * len(masks), ones * 0, stacked)


def test_boxes_and_masks_are_in_pixels_of_the_picture():
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[20:40, 85:110] = 50  # cut by the first tile's edge
    pixels[110:115, 5:295] = 100  # longer than any tile
    pixels[60:190, 150:170] = 150  # under the long one, higher than a tile
    found = SlicedPredictor(Marks(), 100, 0.3)(Image.fromarray(pixels))
    expected = Marks().marks(Image.fromarray(pixels))
    order = [found.boxes.tolist().index(box) for box in expected.boxes.tolist()]
    assert len(found) == 3
    assert torch.equal(found.masks[order], expected.masks)


class Hasty(Marks):
    """Takes the whole picture for one object, besides its marks."""

    def marks(self, image: Image.Image) -> Prediction:
        found = super().marks(image)
        if image.width <= 100:
            return found
        boxes = torch.cat([found.boxes, torch.tensor([[10.0, 10, image.width - 10, 90]])])
        ones = torch.ones(len(boxes), dtype=torch.int64)
        masks = torch.ones(len(boxes), image.height, image.width, dtype=torch.bool)
        return replace(
            found, boxes=boxes, scores=ones * 0.9, labels=ones, queries=ones, names=[""] * len(ones), masks=masks
        )


def test_what_only_the_whole_picture_shows_counts_if_it_is_too_long_for_tiles():
    pixels = np.zeros((100, 190, 3), np.uint8)
    assert len(SlicedPredictor(Hasty(), 100, 0.3)(Image.fromarray(pixels))) == 0
    pixels[12:88, 11:178] = 9  # there is something: both tiles see a part
    assert len(SlicedPredictor(Hasty(), 100, 0.3)(Image.fromarray(pixels))) == 1
    assert len(SlicedPredictor(Hasty(), 100, 0.3)(Image.fromarray(np.zeros((100, 250, 3), np.uint8)))) == 1


def test_top_k_counts_merged_objects():
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[50:60, 10:20], pixels[50:60, 75:90], pixels[50:60, 200:210] = 10, 20, 30
    assert len(SlicedPredictor(Marks(), 100, 0.3)(Image.fromarray(pixels), top_k=2)) == 2


def test_the_rest_is_the_predictors(predictor: Predictor):
    sliced = SlicedPredictor(predictor, 800)
    assert sliced.names is predictor.names and sliced.class_ids(["circle"]) == [1]
    with pytest.raises(ValueError, match="threshold must be in"):
        sliced([], threshold=2)
    with pytest.raises(ValueError, match="--overlap"):
        SlicedPredictor(predictor, 800, 1.0)


@pytest.mark.parametrize(
    ("seen", "kept"), [((22, 20, 100, 80), True), ((22, 20, 60, 80), False), ((60, 90, 90, 100), False), (None, False)]
)
def test_an_object_of_the_whole_picture_needs_a_tile_that_sees_its_part(seen, kept):
    def prediction(*boxes):
        ones = torch.ones(len(boxes), dtype=torch.int64)
        return Prediction(
            Image.new("RGB", (1, 1)), torch.tensor(boxes).float().reshape(-1, 4), ones * 0.9, ones, [], ones
        )

    whole = Part.of((0, 0, 190, 100), prediction((20, 20, 170, 80)), (190, 100), (10, math.inf))
    tiles = [((0, 0, 100, 100), prediction(*([seen] if seen else []))), ((90, 0, 190, 100), prediction())]
    assert confirmed(whole, tiles).tolist() == [kept]
