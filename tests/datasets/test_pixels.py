"""Our transforms give torchvision's pixels, bit for bit, and leave torch's generator in the same state."""

import numpy as np
import pytest
import torch
import torchvision.transforms as theirs
import torchvision.transforms.functional as F
from PIL import Image

import datasets.transforms as T

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(width=50, height=37):
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8))


def same(one, other):
    return one.size == other.size and one.mode == other.mode and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("region", [(0, 0, 37, 50), (3, 5, 20, 30), (-4, -6, 50, 70), (30, 40, 20, 20), (40, 60, 5, 6)])
def test_crops_reach_beyond_the_image(region):
    image, masks = picture(), torch.arange(2 * 37 * 50).reshape(2, 37, 50) % 3 == 0
    cropped, target = T.crop(image, {"masks": masks, "keypoints": torch.zeros(2, 1, 3)}, region)
    assert same(cropped, F.crop(image, *region))
    expected = F.crop(masks, *region)
    assert torch.equal(target["masks"], expected[expected.flatten(1).any(1)])


@pytest.mark.parametrize("size", [(50, 37), (25, 18), (73, 61), (1, 90)])
def test_resizing(size):
    assert same(T.resize(picture(), None, size)[0], F.resize(picture(), size[::-1]))


def test_flips_and_padding():
    assert same(T.hflip(picture(), {})[0], F.hflip(picture()))
    assert same(T.pad(picture(), None, (7, 3))[0], F.pad(picture(), [0, 0, 7, 3]))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "F"])
def test_tensors(mode):
    image = picture().convert(mode)
    tensor, expected = T.ToTensor()(image, None)[0], F.to_tensor(image)
    assert torch.equal(tensor, expected) and tensor.stride() == expected.stride()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normalised_tensors(dtype):
    image = torch.rand(3, 37, 50, dtype=dtype)
    before = image.clone()
    assert torch.equal(T.Normalize(MEAN, STD)(image)[0], F.normalize(image, MEAN, STD))
    assert torch.equal(image, before)


@pytest.mark.parametrize("size", [(37, 50), (37, 20), (10, 50), (11, 12)])
def test_random_positions(size):
    torch.manual_seed(3)
    expected = F.crop(picture(), *theirs.RandomCrop.get_params(picture(), size))
    after = torch.get_rng_state()
    torch.manual_seed(3)
    assert same(T.RandomCrop(size)(picture(), {})[0], expected)
    assert torch.equal(torch.get_rng_state(), after)


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="a crop of 51x20 pixels does not fit into an image of 50x37"):
        T.RandomCrop((20, 51))(picture(), {})
