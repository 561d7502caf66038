"""Damaged pictures, pictures of unusual depth and format, and things that only look like pictures."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets.image_decoding import read_image
from prediction.inputs import read_upright_rgb
from tools.reliability.fuzzing.mutations import mutate_bytes

WIDTH, HEIGHT = 24, 16
PIPE, LOOP, FOLDER = b"a pipe", b"a link to itself", b"a folder"  # contents that stand for what is no plain file


def picture() -> Image.Image:
    """RGB noise."""
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8))


@cache
def pictures() -> tuple[bytes, ...]:
    """The same noise in every format, mode and depth that Pillow can write here."""
    exif = Image.Exif()
    exif[0x0112] = 6
    noise, grey = picture(), picture().convert("L")
    values = np.asarray(grey).astype(np.float32)
    deep, twelve = (Image.fromarray((values * scale).astype(np.uint16)) for scale in (257, 16))
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (noise, "JPEG", {"exif": exif}),
        (noise, "JPEG", {"progressive": True}),
        (noise.convert("CMYK"), "JPEG", {}),
        (noise, "PNG", {"exif": exif}),
        (noise.convert("P"), "PNG", {"transparency": 3}),
        (noise.convert("LA"), "PNG", {}),
        (deep, "PNG", {}),
        (twelve, "PNG", {}),
        (noise.convert("1"), "PNG", {}),
        (noise, "GIF", {"save_all": True, "append_images": [grey]}),
        (noise, "TIFF", {"compression": "tiff_lzw", "exif": exif}),
        (noise.convert("CMYK"), "TIFF", {}),
        (noise.convert("LAB"), "TIFF", {}),
        (Image.fromarray(values), "TIFF", {}),
        (Image.fromarray(values / 255), "TIFF", {}),
        (Image.fromarray((values - 100) * 1e30), "TIFF", {}),
        (Image.fromarray((values * 2**20).astype(np.int32)), "TIFF", {}),
        (deep, "TIFF", {}),
        (twelve, "TIFF", {"compression": "tiff_deflate"}),
        (noise, "WEBP", {"exif": exif}),
        (noise, "BMP", {}),
        (noise.convert("RGBA"), "TGA", {}),
        (grey, "PPM", {}),
        (deep, "PPM", {}),
        (noise, "JPEG2000", {}),
        (noise, "ICO", {}),
        (noise, "AVIF", {}),
        (noise, "EPS", {}),
        (noise, "PDF", {}),
        (noise, "MPO", {"save_all": True, "append_images": [noise]}),
        (noise, "SGI", {}),
        (noise, "PCX", {}),
        (noise, "DDS", {}),
        (grey, "IM", {}),
        (Image.fromarray(values), "SPIDER", {}),
    ]
    Image.init()
    contents = []
    for image, kind, options in kinds:
        if kind not in Image.SAVE:
            continue  # Pillow may be built without it
        file = io.BytesIO()
        image.save(file, kind, **options)
        contents.append(file.getvalue())
    return tuple(contents)


def make_image(rng: random.Random) -> bytes:
    """A damaged picture, an intact one, a claim of a huge one, or something else."""
    way = rng.random()
    if way < 0.15:
        return rng.choice(pictures())
    if way < 0.2:
        return _claim(rng)
    if way < 0.22:
        return rng.choice(_NO_PICTURES)
    return mutate_bytes(rng.choice(pictures()), pictures(), rng)


_NO_PICTURES = (
    *(PIPE, LOOP, FOLDER, b"", b"\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"404 Not Found"),
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 16\n%%EndComments\n(x) run\nshowpage\n%%EOF\n",
    b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 448\n",
)


def _claim(rng: random.Random) -> bytes:
    """A small file whose header claims many pixels."""
    width, height = rng.choice(((60_000, 60_000), (2**31 - 1, 1), (1, 2**31 - 1), (20_000, 20_000), (3, 20_000)))
    way = rng.randrange(5)
    if way == 0:
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        rows = zlib.compress(bytes(100_000))
        parts = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
        chunks = (struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in parts)
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    if way == 1:
        sizes = struct.pack("<IHHIIii", 100, 0, 0, 54, 40, width, height)
        return b"BM" + sizes + struct.pack("<HHIIiiII", 1, 24, 0, 0, 0, 0, 0, 0) + b"\0"
    if way == 2:
        return b"P6\n%d %d\n255\n" % (width, height) + bytes(1000)
    if way == 3:
        return b"GIF89a" + struct.pack("<HH", width % 65_536, height % 65_536) + b"\0\0\0," + bytes(20)
    text = zlib.compress(b"a" * 50_000_000)  # a comment that unpacks to a thousand times its size
    note = b"zTXt" + b"Comment\0\0" + text
    whole = next(content for content in pictures() if content.startswith(b"\x89PNG"))
    return whole[:33] + struct.pack(">I", len(note) - 4) + note + struct.pack(">I", zlib.crc32(note)) + whole[33:]


def read_images(path: Path) -> None:
    """Read a picture as training and as prediction do; an intact one must not come out as one colour."""
    content = path.read_bytes()
    if content in (PIPE, LOOP, FOLDER):
        path.unlink()
        {PIPE: os.mkfifo, LOOP: lambda loop: loop.symlink_to(loop), FOLDER: Path.mkdir}[content](path)
    try:
        annotated = random.Random(zlib.crc32(content)).choice((None, (WIDTH, HEIGHT), (HEIGHT, WIDTH)))
        for image in (read_image(path, annotated), read_upright_rgb(path)):
            if image.mode != "RGB" or 0 in image.size or not image.tobytes():
                raise AssertionError(f"read as {image.mode} {image.size}")
            if content.startswith(b"%!PS"):
                raise AssertionError("a PostScript program was run")
            if content in pictures() and image.convert("L").getextrema()[1] - image.convert("L").getextrema()[0] < 20:
                raise AssertionError(f"noise was read as one colour: {image.getextrema()}")
    finally:
        if path.is_dir():
            path.rmdir()
