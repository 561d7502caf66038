"""Pictures inside a page: bounded in size, and still the same picture."""

import base64
import io

import numpy as np
from PIL import Image

from util.pages.pictures import figure_uri, jpeg_uri


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def test_a_photograph_is_reduced():
    picture = opened(jpeg_uri(Image.new("RGBA", (2000, 1000), (200, 30, 30, 255)), max_side=400))
    assert picture.format == "JPEG" and picture.size == (400, 200)
    assert np.abs(np.asarray(picture).astype(int) - (200, 30, 30)).max() < 8


def test_a_small_photograph_keeps_its_size_and_the_image_its_own():
    image = Image.new("L", (30, 20), 100)
    assert opened(jpeg_uri(image)).size == (30, 20)
    large = Image.new("RGB", (900, 900))
    jpeg_uri(large, max_side=100)
    assert large.size == (900, 900)


def test_a_figure_stays_sharp():
    pixels = np.full((300, 400, 3), 255, np.uint8)
    pixels[100:200, 100:200] = (59, 110, 168)
    picture = opened(figure_uri(png(pixels)))
    assert picture.format == "PNG" and np.array_equal(np.asarray(picture.convert("RGB")), pixels)


def test_a_large_figure_is_bounded():
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    uri = figure_uri(png(noise), max_bytes=50_000)
    assert opened(uri).format == "JPEG" and len(uri) < 50_000 * 4 / 3 + 100
