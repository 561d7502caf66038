"""Grey images of any sample type become 8 bits by their own samples, so that none comes out black."""

import struct

import numpy as np
import pytest
from PIL import Image

from datasets.image_decoding import read_image

GREY = np.linspace(20, 230, 48 * 64).reshape(48, 64)  # the picture as 8 bits would show it


def seen(path, pixels):
    """The first channel after saving and reading, and the notes."""
    notes = []
    Image.fromarray(pixels).save(path)
    return np.asarray(read_image(path, note=lambda _, sentence: notes.append(sentence)))[..., 0].astype(int), notes


@pytest.mark.parametrize(
    "pixels",
    [
        (GREY / 255).astype("float32"),
        (GREY / 255 * 1.04).astype("float32"),
        GREY.astype("float32"),
        (GREY * 257).astype("float32"),
        GREY.astype("int32"),
        (GREY * 257).astype("int32"),
        GREY.astype("uint16"),
        (GREY * 4).astype("uint16"),
        (GREY * 16).astype("uint16"),
        (GREY * 64).astype("uint16"),
    ],
    ids=lambda pixels: f"{pixels.dtype} up to {pixels.max():.4g}",
)
def test_samples_are_scaled_by_their_range_and_the_rule_is_named(tmp_path, pixels):
    grey, notes = seen(tmp_path / "a.tif", pixels)
    assert np.abs(grey - GREY).max() <= 10  # a float range may be passed by 5 %
    assert len(notes) == 1 and "a.tif has samples of" in notes[0]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_full_16_bit_images_keep_their_highest_8_bits(tmp_path, name):
    pixels = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    grey, notes = seen(tmp_path / name, pixels)
    np.testing.assert_array_equal(grey, pixels >> 8)
    grey, notes_of_dark = seen(tmp_path / name, pixels[:65] + np.uint16(1))  # 2**14 is the least full value
    np.testing.assert_array_equal(grey, (pixels[:65] + 1) >> 8)
    assert notes == notes_of_dark == []


@pytest.mark.parametrize(
    ("high", "bits"), [(255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (4096, 14), (16383, 14)]
)
def test_the_depth_is_the_smallest_that_holds_the_largest_sample(tmp_path, high, bits):
    pixels = np.array([[0, high // 2, high]], dtype=np.uint16)
    grey, notes = seen(tmp_path / "a.png", pixels)
    assert grey.tolist() == [[0, high // 2 >> bits - 8, high >> bits - 8]]
    assert f"read as {bits}-bit ones" in notes[0]


def test_greymaps_state_their_range(tmp_path):
    (tmp_path / "a.pgm").write_text("P2\n2 1\n4095\n0 900\n")
    notes = []
    grey = np.asarray(read_image(tmp_path / "a.pgm", note=lambda _, sentence: notes.append(sentence)))[0, :, 0]
    assert grey.tolist() == [0, 900 * 255 // 4095] and notes == []


def test_signed_and_very_large_samples_are_stretched(tmp_path):
    for pixels in (
        (GREY * 10 - 1500).astype("int32"),
        (GREY * 1e5).astype("int32"),
        (GREY / 128 - 1).astype("float32"),
    ):
        grey, notes = seen(tmp_path / "a.tif", pixels)
        assert grey.min() == 0 and grey.max() == 255 and (np.diff(grey.ravel()) >= 0).all()
        assert 100 < np.median(grey) < 155 and "stretched" in notes[0]


def test_unsigned_32_bit_tiffs_do_not_turn_negative(tmp_path):
    pixels = np.array([[0, 2**31, 2**32 - 1]], dtype=np.uint32).view(np.int32)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    signed, unsigned = (struct.pack("<HHIH", 339, 3, 1, kind) for kind in (2, 1))  # the tag SampleFormat
    content = (tmp_path / "a.tif").read_bytes()
    assert content.count(signed) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(signed, unsigned))
    grey = np.asarray(read_image(tmp_path / "a.tif"))[..., 0]
    assert grey[0, 0] == 0 and 120 < grey[0, 1] < 136 and grey[0, 2] == 255


def test_light_intensities_keep_their_highlights_from_turning_the_rest_black(tmp_path):
    pixels = (GREY / 230 * 1.5).astype("float32")
    grey, _ = seen(tmp_path / "a.tif", pixels)
    assert np.abs(grey - GREY * 255 / 230).max() <= 4
    pixels[0, :3] = 1e7
    grey, notes = seen(tmp_path / "b.tif", pixels)
    assert np.median(grey) > 100 and (grey[0, :3] == 255).all() and "1e+07" in notes[0]


def test_samples_that_are_not_finite_do_not_decide_the_scale(tmp_path):
    pixels = (GREY / 255).astype("float32")
    pixels[0, :3] = np.nan, np.inf, -np.inf
    grey, notes = seen(tmp_path / "a.tif", pixels)
    assert np.abs(grey - GREY).max(axis=1)[1:].max() <= 1
    assert grey[0, :3].tolist() == [20, 230, 20] and "and 3 that are not finite" in notes[0]
    with pytest.raises(OSError, match=r"b\.tif cannot be read \(none of its samples is finite\)"):
        seen(tmp_path / "b.tif", np.full((2, 2), np.nan, dtype=np.float32))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(np.float32(0), 0), (np.float32(0.5), 128), (np.float32(200), 200), (np.float32(-3), 128), (np.int32(10**6), 128),
     (np.int32(7), 7), (np.uint16(0), 0), (np.uint16(65535), 255)],
)  # fmt: skip
def test_constant_images(tmp_path, value, expected):
    grey, _ = seen(tmp_path / "a.tif", np.full((3, 4), value))
    assert (grey == expected).all()


def test_black_images_are_not_reported(tmp_path):
    assert seen(tmp_path / "a.png", np.zeros((3, 4), dtype=np.uint16))[1] == []
