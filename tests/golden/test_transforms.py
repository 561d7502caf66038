"""Transforms of image, boxes and masks together, and the published random choices."""

import random
import zlib
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from datasets import transforms as T
from datasets.coco import make_coco_transforms
from tests.helpers.golden_rules import ARRAYS, FACTS, FORWARD, RANDOM_STREAM_BOXES, assert_close, assert_same, covers
from tests.helpers.golden_rules import targets as golden_targets

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
OPERATIONS = {
    "hflip": lambda image, target: T.hflip(image, target),
    "crop": lambda image, target: T.crop(image, target, (10, 15, 60, 70)),
    "resize": lambda image, target: T.resize(image, target, 97, 120),
    "resize_tuple": lambda image, target: T.resize(image, target, (64, 48)),
    "pad": lambda image, target: T.pad(image, target, (13, 7)),
    "center_crop": lambda image, target: T.CenterCrop((50, 60))(image, target),
    "norm": lambda image, target: T.Normalize(MEAN, STD)(*T.ToTensor()(image, target)),
}


@cache
def run_operation(name: str) -> tuple[Any, dict[str, Any]]:
    """Image and target after an operation on a fresh image and a fresh target."""
    pixels = np.random.RandomState(zlib.crc32(b"tf")).randint(0, 256, (113, 150, 3)).astype(np.uint8)
    target = {
        "boxes": torch.tensor([[5.0, 6, 60, 80], [100, 50, 149, 112], [20, 20, 30, 25]]),
        "labels": torch.tensor([1, 2, 3]),
        "area": torch.tensor([4070.0, 3038, 50]),
        "iscrowd": torch.zeros(3, dtype=torch.int64),
        "size": torch.tensor([113, 150]),
        "orig_size": torch.tensor([113, 150]),
        "masks": golden_targets("tfm", [3], 5, [(113, 150)])[0]["masks"].to(torch.uint8),
    }
    return OPERATIONS[name](Image.fromarray(pixels), target)


@covers("tf/*/image")
def test_image(key):
    name = key.split("/")[1]
    image, _ = run_operation(name)
    if name == "norm":
        assert_close(image, ARRAYS[key], FORWARD, key)
    elif name.startswith("resize"):  # Pillow's resampling may round differently in other versions
        ours, golden = np.asarray(image), ARRAYS[key]
        assert ours.dtype == golden.dtype and ours.shape == golden.shape
        assert np.abs(ours.astype(int) - golden.astype(int)).max() <= 2
    else:
        assert_same(np.asarray(image), ARRAYS[key], key)


@covers("tf/*/boxes", "tf/*/area")
def test_boxes_and_areas(key):
    _, name, field = key.split("/")
    assert_close(run_operation(name)[1][field], ARRAYS[key], FORWARD, key)


@covers("tf/*/labels", "tf/*/size")
def test_labels_and_size(key):
    _, name, field = key.split("/")
    assert_same(torch.as_tensor(run_operation(name)[1][field]), ARRAYS[key], key)


@covers("tf/*/masks")
def test_masks(key):
    masks = run_operation(key.split("/")[1])[1]["masks"]
    packed = np.packbits(masks.bool().numpy().ravel())
    assert_same(packed, ARRAYS[key], key)


@covers("tf/*/masks_shape")
def test_mask_shapes(key):
    masks = run_operation(key.split("/")[1])[1]["masks"]
    assert_same(torch.tensor(masks.shape), ARRAYS[key], key)


@covers("resize_sizes/*")
def test_resized_size(key):
    section, name = key.split("/")
    size, short_side = name.split("@")
    image = Image.new("RGB", tuple(int(side) for side in size.split("x")))
    resized, target = T.resize(image, None, int(short_side), 1333)
    assert (list(resized.size), target) == (FACTS[section][name], None)


@covers("random_stream/*")
def test_random_views(key):
    section, index = key.split("/")
    golden = FACTS[section][int(index)]
    target = {
        "boxes": torch.tensor([[100.0, 100, 300, 300]]),
        "labels": torch.tensor([1]),
        "area": torch.tensor([40000.0]),
        "iscrowd": torch.tensor([0]),
    }
    python_state, torch_state = random.getstate(), torch.get_rng_state()
    try:
        random.seed(golden["seed"])
        torch.manual_seed(golden["seed"])
        image, target = make_coco_transforms("train")(Image.new("RGB", (640, 480)), target)
    finally:
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
    assert list(image.shape[1:]) == golden["size"]
    golden_boxes = np.array(golden["boxes"], dtype=np.float32).reshape(-1, 4)
    assert_close(target["boxes"], golden_boxes, RANDOM_STREAM_BOXES, key)
