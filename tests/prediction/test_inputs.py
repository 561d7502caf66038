"""The same picture in any form gives the same pixels; other inputs are refused without being printed."""

import io

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, ImageOps

from prediction.inputs import read_upright_rgb, to_upright_rgb, upright_size
from tests.datasets.test_image_decoding import STORED, save_with_orientation
from tests.helpers.coco_files import captured_warnings


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_files_and_pil_images_are_turned_alike(tmp_path, name, tag):
    path = tmp_path / name
    save_with_orientation(path, tag).close()
    expected = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    assert upright_size(path) == expected.size
    loaded, header = Image.open(path), Image.open(path)
    loaded.load()
    for image in (path, str(path), header, loaded, Image.open(path).copy(), Image.open(path).convert("RGB"), expected):
        turned = to_upright_rgb(image)
        assert turned.size == expected.size and turned.tobytes() == expected.tobytes()


def images():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colours = Image.merge("RGB", [Image.fromarray(grey), Image.fromarray(grey.T.copy()), Image.fromarray(255 - grey)])
    see_through = colours.copy()
    see_through.putalpha(Image.fromarray(grey))
    yield "L.png", Image.fromarray(grey), {}
    yield "LA.png", see_through.convert("LA"), {}
    yield "1.png", Image.fromarray(grey).convert("1"), {}
    yield "P.png", colours.convert("P", palette=Image.Palette.ADAPTIVE), {}
    yield "P transparent.png", colours.convert("P", palette=Image.Palette.ADAPTIVE), {"transparency": bytes(range(200))}
    yield "P one colour.gif", colours.convert("P", palette=Image.Palette.ADAPTIVE), {"transparency": 3}
    yield "RGB one colour.png", colours, {"transparency": (0, 0, 255)}
    yield "RGBA.tif", see_through, {}
    yield "CMYK.jpg", colours.convert("CMYK"), {}
    yield "YCbCr.jpg", colours.convert("YCbCr"), {}
    yield "16 bits.png", Image.fromarray(grey.astype(np.uint16) * 257), {}
    yield "12 bits.tif", Image.fromarray(grey.astype(np.uint16) * 16), {}
    yield "32 bits.tif", Image.fromarray(grey.astype(np.int32) - 100), {}
    yield "F.tif", Image.fromarray(grey.astype(np.float32) / 255), {}


@pytest.mark.parametrize(("name", "image", "options"), [pytest.param(*each, id=each[0]) for each in images()])
def test_every_mode_gives_the_same_pixels_as_a_file_and_as_a_pil_image(tmp_path, name, image, options):
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / name, **options, **({} if name.endswith(".gif") else {"exif": exif}))
    expected = read_upright_rgb(tmp_path / name)
    opened = Image.open(tmp_path / name)
    assert to_upright_rgb(opened).tobytes() == expected.tobytes()
    assert to_upright_rgb(opened).tobytes() == expected.tobytes(), "a second time, after loading"
    assert len(set(expected.tobytes())) > 1


def test_arrays_and_tensors_are_taken_as_they_are():
    pixels = np.asarray(STORED)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    for image in (pixels, pixels[:, ::-1][:, ::-1], tensor, tensor.float() / 255, tensor.double() / 255):
        assert to_upright_rgb(image).tobytes() == STORED.tobytes()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"\x89PNG" * 30000, r"bytes: .* use PIL.Image.open\(io.BytesIO\(content\)\)"),
        (bytearray(30000), "bytearray"),
        (memoryview(b"abc"), "memoryview"),
        (io.BytesIO(b"abc"), r"an open file \(BytesIO\): use PIL.Image.open"),
        ({"image": "x" * 100000}, "an object of type dict"),
        (list(range(50000)), "an object of type list"),
        (iter([]), "an iterator .*: pass it to the predictor"),
        (None, "an object of type NoneType"),
        (7, "an object of type int"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_inputs_are_refused_by_their_type_alone(image, words):
    accepted = r"^an image must be a path, an http\(s\) address, a PIL image, .*"
    with pytest.raises(ValueError, match=f"{accepted}; got {words}") as caught:
        to_upright_rgb(image)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.array(["a.png"] * 30000),
        torch.zeros(1, 3, 4, 4),
        torch.zeros(3, 4, 0),
        torch.full((3, 2, 2), float("nan")),
        torch.zeros(3, 4, 4, dtype=torch.int64),
        Image.new("RGB", (0, 4)),
    ],
)
def test_other_shapes_and_types_of_arrays_are_refused(image):
    with pytest.raises(ValueError, match="an image |a float image tensor") as caught:
        to_upright_rgb(image)
    assert len(str(caught.value)) < 250


def test_a_long_text_is_not_printed_as_a_path():
    for text in ("data:image/png;base64," + "A" * 100000, "A" * 100000):
        with pytest.raises(OSError, match="address|File name too long") as caught:
            to_upright_rgb(text)
        assert len(str(caught.value)) < 1200


def test_a_damaged_pil_image_is_named(tmp_path):
    STORED.save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:700])
    with pytest.raises(OSError, match=r"the image .*a.jpg cannot be read \(.*truncated"):
        to_upright_rgb(Image.open(tmp_path / "a.jpg"))


def test_the_limit_of_pixels_holds_for_files(tmp_path):
    STORED.save(tmp_path / "a.png")
    for read in (to_upright_rgb, read_upright_rgb, upright_size):
        with pytest.raises(OSError, match="--max_pixels 1200"):
            read(tmp_path / "a.png", 1199)


def test_a_pil_image_at_a_later_frame_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.image_decoding._said", set())
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    opened = Image.open(tmp_path / "a.gif")
    opened.seek(1)
    with captured_warnings() as lines:
        assert to_upright_rgb(opened).getpixel((0, 0)) == (0, 0, 255) and lines == []
        assert to_upright_rgb(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)
    assert len(lines) == 1 and "a.gif has several frames or pages: the first is used" in lines[0]


def test_postscript_is_not_decoded_for_a_pil_image_either(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    STORED.save(tmp_path / "a.eps")
    with pytest.raises(ValueError, match="a.eps is of the format EPS, which is not decoded here: load it first"):
        to_upright_rgb(Image.open(tmp_path / "a.eps"))
