"""The perceptual hash: what leaves it nearly unchanged and what does not; how many bits apart pairs are."""

import io

import numpy as np
import pytest
from PIL import Image

from datasets.splits.near_duplicates import NEAR
from datasets.splits.perceptual_hash import (
    BITS,
    close_pairs,
    distance,
    hash_files,
    perceptual_hash,
    usual_distance,
)
from tests.datasets.splits.scenes import scene


def saved(image: Image.Image, kind: str = "JPEG", **options: int) -> Image.Image:
    """The image as it is read from a file of this kind, opened and not loaded."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return Image.open(file)


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_of_another_size_or_quality_is_near(seed):
    image = scene(seed)
    larger = image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC)
    original = perceptual_hash(image)
    for copy in (saved(image, quality=30), saved(larger, quality=80), saved(image, "PNG"), image.convert("RGBA")):
        assert distance(original, perceptual_hash(copy)) <= NEAR


def test_unrelated_pictures_are_far():
    hashes = [perceptual_hash(scene(seed)) for seed in range(30)]
    assert not list(close_pairs(hashes, NEAR))
    assert usual_distance(hashes) > 2 * NEAR


@pytest.mark.parametrize("color", [0, 17, 255])
def test_an_image_of_one_colour_has_the_hash_0(color):
    assert perceptual_hash(Image.new("RGB", (70, 50), (color, 3, color))) == 0


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "I;16", "F"])
def test_every_mode_is_hashed(mode):
    grey = scene(3).convert("L")
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256) if mode == "I;16" else grey.convert(mode)
    assert distance(perceptual_hash(image), perceptual_hash(grey)) <= NEAR


def test_the_first_bits_are_the_lowest_frequencies():
    across = np.cos(np.pi * (np.arange(64) + 0.5) / 64)  # the lowest frequency along x, the second number of the block
    image = Image.fromarray(np.uint8(np.tile(127 + 100 * across, (64, 1)).round()))
    hashed = perceptual_hash(image)
    assert hashed >> (BITS - 2) & 1 == 1
    assert distance(hashed, perceptual_hash(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), 4) == 1


def test_close_pairs_are_those_of_comparing_every_pair():
    random = np.random.default_rng(0)
    base = int.from_bytes(random.bytes(BITS // 8), "big")
    hashes = [base ^ sum(1 << int(bit) for bit in random.choice(BITS, n, replace=False)) for n in range(0, 60, 3)]
    expected = [
        (i, j, distance(hashes[i], hashes[j]))
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if distance(hashes[i], hashes[j]) <= 40
    ]
    assert expected
    assert sorted(close_pairs(hashes, 40)) == expected
    assert list(close_pairs([], 40)) == list(close_pairs([base], 40)) == []


def test_files_that_cannot_be_read_have_no_hash(tmp_path):
    scene(0).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    seen = []
    names = ["good.png", "bad.png", "missing.png"]
    hashes = hash_files([tmp_path / name for name in names], progress=lambda: seen.append(1))
    assert hashes == [perceptual_hash(scene(0)), None, None]
    assert len(seen) == 3
    assert hash_files([tmp_path / "good.png"], max_pixels=10) == [None]
