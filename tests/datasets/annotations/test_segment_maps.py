"""Panoptic PNG files: colours are ids, and other files are rejected."""

import io

import numpy as np
import pytest
from PIL import Image

from datasets.annotations.segment_maps import MAX_SEGMENT_ID, decode_segment_map, read_segment_map
from util.pictures.segment_png import encode_png


def png(pixels, mode=None):
    file = io.BytesIO()
    image = Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    (image.convert(mode) if mode else image).save(file, format="PNG")
    return file.getvalue()


def test_red_counts_once_green_256_times_blue_65536_times():
    ids = decode_segment_map(png([[[1, 2, 3], [0, 0, 0]], [[255, 255, 255], [0, 1, 0]]]))
    assert ids.tolist() == [[1 + 2 * 256 + 3 * 65536, 0], [MAX_SEGMENT_ID, 256]]
    assert ids.dtype == np.int32


def test_decoding_inverts_encoding():
    ids = np.random.default_rng(0).integers(0, MAX_SEGMENT_ID + 1, (7, 11)).astype(np.int32)
    np.testing.assert_array_equal(decode_segment_map(encode_png(ids)), ids)


def test_transparency_is_ignored():
    assert decode_segment_map(png([[[1, 2, 3, 40]]])).tolist() == [[1 + 2 * 256 + 3 * 65536]]


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_maps_without_colours_are_rejected(mode):
    with pytest.raises(ValueError, match=f"has mode {mode}, but the ids are RGB colours"):
        decode_segment_map(png([[[9, 9, 9]]], mode))


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / "4.png"
    with pytest.raises(FileNotFoundError, match=r"panoptic map .*4\.png does not exist"):
        read_segment_map(path)
    whole = encode_png(np.arange(600).reshape(20, 30))
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"panoptic map .*4\.png cannot be read as an image"):
            read_segment_map(path)
    path.write_bytes(png([[7]]))
    with pytest.raises(ValueError, match=r"panoptic map .*4\.png has mode L"):
        read_segment_map(path)
    with pytest.raises(OSError, match="panoptic map .* cannot be read"):
        read_segment_map(tmp_path)
