"""Changed colours: what each of the four numbers does, that both forms agree, that boxes and other draws stay."""

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from datasets.augment.color_jitter import ColorJitter, recolor
from datasets.coco import make_coco_transforms
from datasets.fast.byte_image import ByteImage
from datasets.transforms import Compose, RandomHorizontalFlip


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 9, 3)).astype(np.uint8))


def values(image: Image.Image | ByteImage) -> np.ndarray:
    found = image.pixels[..., :3].numpy() if isinstance(image, ByteImage) else np.asarray(image)
    return found.astype(np.int64)


CHANGES = [
    {},
    {"brightness": 1.3},
    {"contrast": 0.5},
    {"saturation": 1.8},
    {"turn": 0.05},
    {"brightness": 0.7, "contrast": 1.4, "saturation": 0.3, "turn": -0.1},
]


@pytest.mark.parametrize("change", CHANGES)
def test_bytes_and_pillow_agree(change):
    assert np.abs(values(recolor(ByteImage.of(picture()), **change)) - values(recolor(picture(), **change))).max() <= 1


def test_no_change_is_the_image():
    assert (values(recolor(picture())) == values(picture())).all()


@pytest.mark.parametrize(
    ("name", "enhance"), [("brightness", ImageEnhance.Brightness), ("saturation", ImageEnhance.Color)]
)
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.5])
def test_brightness_and_saturation_are_pillows(name, enhance, factor):
    """Within its rounding of the grey image, times the factor, and that of the result."""
    found, expected = values(recolor(picture(), **{name: factor})), values(enhance(picture()).enhance(factor))
    assert np.abs(found - expected).max() <= 2


def test_contrast_moves_colours_to_the_mean_brightness():
    image = picture()
    found = values(recolor(image, contrast=0.0))
    mean = (values(image) @ [0.299, 0.587, 0.114]).mean()
    assert np.abs(found - mean).max() <= 0.5 + 1e-3


def test_a_third_of_a_turn_makes_red_another_colour_of_the_same_brightness():
    red = Image.new("RGB", (1, 1), (120, 60, 60))
    for turn in (0.05, 1 / 3):
        turned = values(recolor(red, turn=turn))[0, 0]
        assert abs((turned - values(red)[0, 0]) @ [0.299, 0.587, 0.114]) <= 0.6  # rounding to bytes
    assert turned.argmax() != 0
    assert (values(recolor(red, turn=1.0)) == values(red)).all()


def test_the_draws_are_mild_and_differ():
    changed = []
    random.seed(0)
    for _ in range(20):
        image, target = ColorJitter(0.2)(Image.new("RGB", (4, 4), (100, 120, 140)), {"boxes": 1})
        changed.append(tuple(values(image)[0, 0].tolist()))
        assert target == {"boxes": 1}
    assert len(set(changed)) == 20
    assert np.abs(np.array(changed) - [100, 120, 140]).max() < 60


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_other_modes_become_rgb(mode):
    assert recolor(picture().convert(mode), brightness=1.1).mode == "RGB"


def test_both_forms_of_the_augmentation_agree_and_boxes_are_those_without_jitter():
    target = {"boxes": torch.tensor([[1.0, 2.0, 7.0, 9.0]]), "labels": torch.tensor([1]), "size": torch.tensor([12, 9])}
    sizes = {"train_sizes": (8, 12, 16), "max_size": 24}
    fast, without = make_coco_transforms("train", color_jitter=0.4, **sizes), make_coco_transforms("train", **sizes)
    for seed in range(10):
        found = []
        for transforms in (fast, Compose(fast.transforms), without):
            random.seed(seed)
            torch.manual_seed(seed)
            found.append(transforms(picture(seed), target))
        (one, first), (other, second), (plain, third) = found
        # 2 of 255 of the resizing, each times at most 1.4 of contrast, brightness and saturation, and roundings
        assert ((one - other).abs() <= (2 * 1.4**3 + 2) / 255 / 0.224).all()
        assert torch.equal(first["boxes"], second["boxes"]) and torch.equal(first["boxes"], third["boxes"])
        assert one.shape == plain.shape and not torch.equal(one, plain)


def test_without_flips_nothing_is_mirrored():
    moves = make_coco_transforms("train", flip=False).transforms
    assert not any(isinstance(step, RandomHorizontalFlip) for step in moves)
    wedge = Image.fromarray(np.tile(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], (24, 1, 3)))
    transforms = make_coco_transforms("train", flip=False, crop=False, train_sizes=(24,), max_size=24)
    for seed in range(10):
        random.seed(seed)
        view, _ = transforms(wedge, None)
        assert view[0, 0, 0] < view[0, 0, -1]


def test_the_published_augmentation_is_the_default():
    assert repr(make_coco_transforms("train", flip=True, color_jitter=0)).count("RandomHorizontalFlip") == 1
    assert len(make_coco_transforms("train").transforms) == 3
