"""Pictures inside a page, as data URIs."""

from __future__ import annotations

import base64
import io

from PIL import Image

from util.pages.markup import Html

QUALITY = 80  # of JPEG


def jpeg_uri(image: Image.Image, max_side: int = 640, quality: int = QUALITY) -> Html:
    """A photograph as a data URI, reduced so that no side is longer than `max_side` pixels."""
    image = image.convert("RGB")
    if max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, format="JPEG", quality=quality, optimize=True)
    return _uri("jpeg", content.getvalue())


def figure_uri(content: bytes, max_bytes: int = 300_000) -> Html:
    """A drawn figure, the content of a PNG file, as a data URI.

    It is stored with 256 colours if that is smaller, and as JPEG, reduced until it fits, if it is still larger than
    `max_bytes`.
    """
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        image = image.convert("RGB")
    packed = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(packed, format="PNG", optimize=True)
    smallest = min(content, packed.getvalue(), key=len)
    if len(smallest) <= max_bytes:
        return _uri("png", smallest)
    while True:
        packed = io.BytesIO()
        image.save(packed, format="JPEG", quality=QUALITY, optimize=True)
        if packed.tell() <= max_bytes or max(image.size) < 200:
            return _uri("jpeg", packed.getvalue())
        image = image.resize((max(1, image.width * 4 // 5), max(1, image.height * 4 // 5)), Image.Resampling.LANCZOS)


def _uri(kind: str, content: bytes) -> Html:
    return Html(f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}")
