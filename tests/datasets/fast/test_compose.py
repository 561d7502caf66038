"""The fast transforms give the views of the plain ones."""

import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

import datasets.transforms as T
from datasets.coco import CocoDetection, make_coco_transforms
from datasets.fast import compose
from datasets.fast.compose import FastCompose
from tests.helpers.paths import SHARED_DATA
from util.rng import preserve_rng_state

STEP = 1 / 255 / torch.tensor(T.IMAGENET_STD)[:, None, None]  # a step of 1 of 255 after normalising
SIZES = {
    "published": {},
    "small": {"train_sizes": (24, 40, 64), "max_size": 100},
    "without crop": {"train_sizes": (48, 80), "max_size": 133, "crop": False},
    "one pixel": {"train_sizes": (1, 3), "max_size": 9},
}
FEW = {"published": 2}  # seeds; the others take milliseconds


def sample(width, height, seed=0, mode="RGB"):
    g = np.random.default_rng(seed)
    corners = np.sort(g.random((6, 2, 2)), axis=1) * [width, height]
    boxes = torch.tensor(corners.reshape(6, 4), dtype=torch.float32)
    masks = torch.from_numpy(g.random((6, height, width)) < 0.5)
    image = Image.fromarray(g.integers(0, 256, (height, width, 3)).astype(np.uint8)).convert(mode)
    return image, {
        "boxes": boxes,
        "labels": torch.arange(6),
        "area": (boxes[:, 2:] - boxes[:, :2]).prod(dim=1),
        "iscrowd": torch.arange(6) % 2,
        "annotation_id": torch.arange(800, 806),
        "thin": torch.arange(6) % 3 == 0,
        "masks": masks,
        "keypoints": torch.cat([boxes.reshape(6, 2, 2), torch.full((6, 2, 1), 2.0)], dim=-1),
        "size": torch.tensor([height, width]),
        "orig_size": torch.tensor([height, width]),
    }


def apply(transforms, image, target, seed):
    """What the transforms give, and the numbers that the generators give next."""
    with preserve_rng_state():
        random.seed(seed)
        torch.manual_seed(seed)
        image, target = transforms(image, target)
        return image, target, (random.random(), torch.rand(()).item())


@contextmanager
def must_be(fast, monkeypatch):
    """Context in which the images must, or must not, become `ByteImage`s."""
    seen = []
    monkeypatch.setattr(
        compose.ByteImage, "of", classmethod(lambda cls, image, of=compose.ByteImage.of: (seen.append(1), of(image))[1])
    )
    yield
    assert bool(seen) == fast


def assert_same_views(transforms, image, target, seed):
    fast_image, fast_target, fast_next = apply(transforms, image, target, seed)
    plain_image, plain_target, plain_next = apply(T.Compose(transforms.transforms), image, target, seed)
    assert fast_next == plain_next
    assert fast_image.shape == plain_image.shape and fast_image.dtype == plain_image.dtype
    assert ((fast_image - plain_image).abs() <= 2.001 * STEP).all()
    assert fast_target.keys() == plain_target.keys()
    for name, value in plain_target.items():
        assert torch.equal(fast_target[name], value), name


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("width, height", [(64, 48), (45, 60), (1, 1), (2, 80), (160, 4), (7, 5)])
def test_views_are_those_of_the_plain_transforms(sizes, width, height, monkeypatch):
    with must_be(True, monkeypatch):
        for seed in range(FEW.get(sizes, 12)):
            assert_same_views(make_coco_transforms("train", **SIZES[sizes]), *sample(width, height, seed), seed)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_other_images_take_the_plain_way(mode, monkeypatch):
    plain = T.Compose([T.RandomHorizontalFlip(), T.RandomResize([20]), T.ToTensor()])
    last = T.Compose([T.ToTensor(), T.Normalize([0.5], [0.5])])
    image, target = sample(30, 20, mode=mode)
    with must_be(False, monkeypatch):
        found, _ = FastCompose([*plain.transforms[:2], last])(image, target)
    assert len(found) == len(mode)


class Darken:
    def __call__(self, image, target):
        return image.point(lambda value: value // 2), target


class OtherResize(T.RandomResize):
    def __call__(self, image, target=None):
        return T.resize(image, target, 1 + image.getbbox()[0])


LAST = T.Compose([T.ToTensor(), T.Normalize(T.IMAGENET_MEAN, T.IMAGENET_STD)])


@pytest.mark.parametrize(
    "steps",
    [
        [Darken(), LAST],
        [OtherResize([9]), LAST],
        [T.RandomSelect(T.RandomResize([9]), T.Compose([T.RandomPad(4)])), LAST],
        [T.CenterCrop((70, 70)), LAST],  # beyond the image, where Pillow is black
        [T.RandomResize([9]), *LAST.transforms],
        [T.RandomResize([9]), T.ToTensor()],
        [T.RandomResize([9]), T.Compose([*LAST.transforms, T.RandomErasing(p=1)])],
    ],
)
def test_transforms_that_need_a_pil_image_get_one(steps, monkeypatch):
    with must_be(False, monkeypatch):
        assert_same_views(FastCompose(steps), *sample(64, 48), seed=0)


def test_no_transforms_return_the_pair():
    image, target = sample(8, 6)
    assert FastCompose([])(image, target) == (image, target)


def test_an_image_without_a_target():
    image, _ = sample(64, 48)
    found, target = FastCompose([T.RandomResize([20]), LAST])(image, None)
    assert found.shape == (3, 20, 26) and target is None


def test_validation_keeps_pillows_pixels():
    assert type(make_coco_transforms("val")) is T.Compose
    assert type(make_coco_transforms("train")) is FastCompose


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="../shared/data is not here")
def test_views_of_real_images():
    folder = SHARED_DATA / "bccd"
    data = CocoDetection(folder / "train2017", folder / "annotations/instances_train2017.json", None, False)
    transforms = make_coco_transforms("train")
    for seed in range(4):
        assert_same_views(transforms, *data[seed], seed)
