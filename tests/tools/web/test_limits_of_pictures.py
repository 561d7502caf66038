"""Files that are no usable pictures, or cost too much: they are refused before their pixels are decoded."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the page needs the extra web")
pytest.importorskip("uvicorn", reason="the page needs the extra web")

from datasets.image_files import pixel_limit
from tests.tools.web.serving import ask, encoded, serving
from tools.web.arguments import parse
from tools.web.looking import Detector, decode
from tools.web.refusal import Refused


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


class NeverAsked:
    """In the place of a `Predictor` that must not see the picture."""

    categories: list = []
    model = None
    device = "cpu"

    def predicted(self) -> dict:
        return {}

    def __call__(self, *inputs, **settings):
        pytest.fail("the picture reached the model")


@pytest.mark.parametrize(
    ("content", "status", "error"),
    [
        (png_of(60_000, 60_000), 413, "too_many_pixels"),
        (png_of(1001, 1000), 413, "too_many_pixels"),
        (png_of(1000, 1000)[:500], 422, "damaged"),
        (b"/etc/passwd", 415, "no_picture"),
        (b"http://127.0.0.1/picture.png", 415, "no_picture"),
        (b'{"path": "/etc/passwd"}', 415, "no_picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "no_picture"),
        (b"II*\0" + bytes(100), 415, "no_picture"),
        (b"\xff\xd8\xff\xdb" + 300 * b"\xff\xda", 422, "damaged"),
    ],
    ids=["60000x60000", "one row more", "cut", "path", "address", "json", "postscript", "tiff", "scans"],
)
def test_what_is_no_usable_picture_never_reaches_the_model(content: bytes, status: int, error: str):
    with serving(Detector(NeverAsked(), max_pixels=1_000_000)) as port:
        found, _, answer = ask(port, body=content)
        assert (found, answer["error"]) == (status, error)
        assert answer["message"].count("\n") == 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF"])
def test_no_pixel_of_a_large_picture_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch):
    whole = encoded(Image.new("RGB", (64, 64)), kind)
    image = Image.open(io.BytesIO(whole))
    monkeypatch.setattr(type(image), "load", lambda image: pytest.fail("a pixel was decoded"))
    with pytest.raises(Refused) as refused:
        decode(whole, 64 * 64 - 1)
    assert refused.value.code == "too_many_pixels"


def test_by_default_25_million_pixels_are_taken_and_one_row_more_is_not():
    limit = parse(["model.pth"]).max_pixels
    with pytest.raises(Refused, match="the limit of 25,000,000 pixels"):
        decode(png_of(5000, 5001), limit)
    with pytest.raises(Refused) as refused:
        decode(png_of(5000, 5000)[:500], limit)
    assert refused.value.code == "damaged"


def jpeg_with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again; every decoder reads it."""
    whole = encoded(Image.new("RGB", (64, 64), "teal"), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    before, scan = whole[:last], whole[last:-2]
    return before + scan * (count - before.count(b"\xff\xda")) + whole[-2:]


def test_a_jpeg_of_thousands_of_scans_is_refused_and_one_of_a_hundred_is_not():
    many = jpeg_with_scans(3000)
    Image.open(io.BytesIO(many)).load()  # it is no damaged file
    with pytest.raises(Refused, match="more than 200 scans"):
        decode(many, 64 * 64)
    assert decode(jpeg_with_scans(100), 64 * 64)[0].size == (64, 64)


def test_the_limit_is_the_pages_own_whatever_pillow_and_others_in_the_process_allow():
    with pixel_limit(10**9), pytest.raises(Refused) as refused:
        decode(png_of(1001, 1000), 1_000_000)
    assert refused.value.code == "too_many_pixels"
    with pytest.raises(Refused) as refused:  # above Pillow's limit, but not above the page's
        decode(png_of(20_000, 20_000)[:500], 10**9)
    assert refused.value.code == "damaged"
