"""Images of every mode become RGB, and EXIF orientation is applied only where the annotations need it."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from datasets.image_decoding import read_image
from tests.helpers.coco_files import captured_warnings


def colours(mode):
    """A 4x3 image of the mode with black, dark grey, light grey and white columns, and its file name."""
    grey = np.tile(np.array([0, 60, 200, 255], dtype=np.uint8), (3, 1))
    image = Image.fromarray(grey)
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257), "image.png"
    if mode.startswith("P"):
        image = Image.fromarray(np.tile(np.arange(4, dtype=np.uint8), (3, 1))).convert("P")
        image.putpalette([value for column in (0, 60, 200, 255) for value in [column] * 3])
        return image, "image.png"
    if mode == "CMYK":
        return Image.merge("CMYK", [Image.new("L", (4, 3))] * 3 + [Image.fromarray(255 - grey)]), "image.tif"
    if mode == "RGBA":
        image = image.convert("RGB")
        image.putalpha(Image.fromarray(np.tile(np.array([0, 255, 128, 9], dtype=np.uint8), (3, 1))))
        return image, "image.png"
    return image.convert(mode), "image.png"


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "P transparent", "CMYK", "I;16"])
def test_every_kind_of_image_comes_out_as_rgb(tmp_path, mode):
    image, name = colours(mode)
    options = {"transparency": bytes([0, 255, 128, 9])} if mode == "P transparent" else {}
    image.save(tmp_path / name, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_image(tmp_path / name)
    assert read.mode == "RGB"
    expected = np.repeat(np.array([0, 60, 200, 255])[None, :, None], 3, axis=0).repeat(3, axis=2)
    np.testing.assert_array_equal(np.asarray(read), expected)


def test_black_and_white_images_are_read_too(tmp_path):
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1").save(tmp_path / "image.png")
    assert np.asarray(read_image(tmp_path / "image.png")).tolist() == [[[0] * 3, [255] * 3]]


STORED = Image.fromarray(np.random.RandomState(0).randint(0, 256, (30, 40, 3)).astype(np.uint8))


def save_with_orientation(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    STORED.save(path, exif=exif, quality=95)
    return Image.open(path)


@pytest.mark.parametrize("name", ["image.jpg", "image.png", "image.tif"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_turns_an_image_whose_annotations_were_turned(tmp_path, name, orientation):
    turned = ImageOps.exif_transpose(save_with_orientation(tmp_path / name, orientation))
    read = read_image(tmp_path / name, (30, 40))
    assert read.size == (30, 40)
    assert read.tobytes() == turned.tobytes()


@pytest.mark.parametrize("name", ["image.jpg", "image.png", "image.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_does_not_turn_an_image_annotated_as_stored(tmp_path, name, orientation):
    save_with_orientation(tmp_path / name, orientation)
    read = read_image(tmp_path / name, (40, 30))
    STORED.save(tmp_path / name, quality=95)
    assert read.size == (40, 30)
    assert read.tobytes() == Image.open(tmp_path / name).tobytes()


@pytest.mark.parametrize(("orientation", "annotated"), [(6, None), (6, (20, 20)), (3, (30, 40)), (1, (30, 40))])
def test_exif_does_not_turn_an_image_where_no_turn_fits_the_annotations(tmp_path, orientation, annotated):
    save_with_orientation(tmp_path / "image.png", orientation)
    assert read_image(tmp_path / "image.png", annotated).tobytes() == STORED.tobytes()


# --- Unreadable files -------------------------------------------------------------------------------------------------


def saved(path, image=STORED, **options):
    image.save(path, **options)
    return path.read_bytes()


def refused(path, content, sentence=""):
    path.write_bytes(content)
    with pytest.raises(OSError, match=f"{path.name} cannot be read .*{sentence}.*: replace it, or remove it"):
        read_image(path)


@pytest.mark.parametrize("name", ["image.jpg", "image.png", "image.webp", "image.tif", "image.bmp", "image.gif"])
def test_a_file_that_is_empty_truncated_or_not_an_image_is_named(tmp_path, name):
    path = tmp_path / name
    whole = saved(path)
    refused(path, b"")
    refused(path, b"<!DOCTYPE html>\n<html>")
    refused(path, bytes(1000))
    for share in (0.01, 0.5):
        refused(path, whole[: int(len(whole) * share)])


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.png does not exist: check the image folder"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(OSError, match="cannot be read .Is a directory"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), ZeroDivisionError("x"), KeyError("x"), AttributeError("x"), RuntimeError("x"), zlib.error("x")],
)
def test_any_error_of_the_decoder_names_the_file(tmp_path, monkeypatch, error):
    saved(tmp_path / "image.png")

    def fail(*_):
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(OSError, match="image.png cannot be read") as caught:
        read_image(tmp_path / "image.png")
    assert caught.value.__cause__ is error


def test_modes_that_cannot_be_converted_to_rgb_are_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.image_decoding.to_rgb", lambda *_: Image.new("LAB", (1, 1)).convert("1"))
    refused(tmp_path / "image.png", saved(tmp_path / "image.png"), "conversion")


def test_a_damaged_exif_block_is_ignored(tmp_path):
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        STORED.save(tmp_path / "image.jpg", exif=exif)
        assert read_image(tmp_path / "image.jpg", (30, 40)).size == (40, 30)


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    red, blue = (Image.new("RGB", (4, 3), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "image.gif", save_all=True, append_images=[blue])
    assert np.asarray(read_image(tmp_path / "image.gif"))[0, 0].tolist() == [255, 0, 0]


def test_further_frames_are_reported(tmp_path):
    said = []
    for name in ("image.gif", "image.tif", "image.webp", "image.png"):
        frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        read_image(tmp_path / name, note=lambda kind, sentence: said.append((kind, sentence)))
        STORED.save(tmp_path / f"one{name}")
        read_image(tmp_path / f"one{name}", note=lambda kind, sentence: said.append((kind, sentence)))
    assert [kind for kind, _ in said] == ["frames"] * 4
    assert "image.tif has several frames or pages: the first is used" in said[1][1]


def test_a_note_is_logged_once_for_each_kind(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.image_decoding._said", set())
    with captured_warnings() as lines:
        for number in range(3):
            Image.fromarray(np.full((2, 2), 1000 + number, dtype=np.uint16)).save(tmp_path / f"{number}.tif")
            read_image(tmp_path / f"{number}.tif")
    assert len(lines) == 1 and "0.tif has samples of 1000..1000" in lines[0]


def test_16_bit_colours_that_come_out_nearly_black_are_reported(tmp_path):
    said = []
    for peak in (1023, 4095, 65535):
        write_16_bit_colours(tmp_path / "image.png", np.full((2, 2, 3), peak))
        assert np.asarray(read_image(tmp_path / "image.png", note=lambda *note: said.append(note))).max() == peak >> 8
    assert [kind for kind, _ in said] == ["colours"] * 2 and "convert it to 8 bits" in said[0][1]


def write_16_bit_colours(path, pixels):
    """A PNG of [h, w, 3] with 16 bits per sample, which Pillow reads but does not write."""
    height, width, _ = pixels.shape

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def test_an_image_of_one_pixel_is_read(tmp_path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "image.png")
    assert np.asarray(read_image(tmp_path / "image.png")).tolist() == [[[255, 0, 0]]]
