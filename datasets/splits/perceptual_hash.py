"""A perceptual hash: pictures that look alike have hashes that differ in few bits.

The hash holds the signs of the 255 lowest frequencies of the grey picture's discrete cosine transform, the lowest first
(the "pHash" of Zauner 2010, with signs in place of comparisons with the median, so that a prefix of the hash is itself
a hash). Measured on photographs of blood cells, on COCO's and on the built-in shapes:

                                                  of 256 bits     of the first 64
    saved again as JPEG, half or triple the size     0 to 31          0 to 7
    moved by a twentieth of the width               90 to 116         8 to 21
    unrelated                                       87 to 170        11 to 50
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL.Image import Image, Resampling

from datasets.image_decoding import to_rgb
from datasets.image_files import open_image
from util.settings import MAX_PIXELS

BITS = 256
SIDE = 64  # pixels of the small grey picture
_TILE = 2048  # pictures whose distances to as many others are computed at a time


def _lowest_first() -> np.ndarray:
    """Positions in a flat 16x16 block of frequencies, int64 [256], in ascending order of the larger frequency.

    The first n·n of them are thus the n x n lowest.
    """
    row, column = np.divmod(np.arange(BITS), 16)
    return np.lexsort((column, row, row + column, np.maximum(row, column)))


_ORDER = _lowest_first()


def perceptual_hash(image: Image) -> int:
    """The hash of a PIL image of any mode, below 2**256; 0 for an image of one colour.

    An image that was opened but not loaded is decoded at a fraction of its size where its format allows it (JPEG).
    """
    from scipy.fft import dctn

    image.draft("L", (SIDE, SIDE))  # does nothing for other formats, and once the image is loaded
    if image.mode not in ("L", "RGB"):
        image = to_rgb(image, note=lambda kind, sentence: None)
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Resampling.BOX), dtype=np.float32)
    frequencies = dctn(grey - grey[0, 0], norm="ortho")[:16, :16].ravel()  # exactly 0 for one colour
    frequencies[0] = 0  # the brightness
    return int.from_bytes(np.packbits(frequencies[_ORDER] > 0).tobytes(), "big")


def hash_files(
    paths: Sequence[str | Path], *, max_pixels: int = MAX_PIXELS, progress: Callable[[], object] | None = None
) -> list[int | None]:
    """The hash of each image file, None for one that cannot be read.

    Args:
        max_pixels: a file with more pixels counts as one that cannot be read.
        progress: called after each file.
    """

    def hash_file(path: str | Path) -> int | None:
        try:
            with open_image(path, max_pixels) as image:
                return perceptual_hash(image)
        except OSError:
            return None

    hashes = []
    threads = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:  # Pillow decodes outside of Python's lock
        for found in pool.map(hash_file, paths):
            hashes.append(found)
            if progress is not None:
                progress()
    return hashes


def distance(one: int, other: int, bits: int = BITS) -> int:
    """In how many of their first `bits` bits two hashes differ."""
    return ((one ^ other) >> (BITS - bits)).bit_count()


def close_pairs(hashes: Sequence[int], most: int) -> Iterator[tuple[int, int, int]]:
    """Every (i, j, distance) with i < j whose hashes differ in at most `most` bits.

    All pairs are compared, by products of matrices: 10,000 pictures take seconds, 100,000 minutes.
    """
    signs = _signs(hashes)
    for top in range(0, len(signs), _TILE):
        for left in range(top, len(signs), _TILE):
            apart = (BITS - signs[top : top + _TILE] @ signs[left : left + _TILE].T) / 2  # exact: small integers
            for row, column in np.argwhere(apart <= most).tolist():
                if top + row < left + column:
                    yield top + row, left + column, int(apart[row, column])


def usual_distance(hashes: Sequence[int]) -> float:
    """The number of bits that a quarter of all pairs of the hashes exceed; `BITS` / 2 for fewer than two.

    Some 130 for photographs, and little where nearly all show one scene, as those of a fixed camera do.
    """
    signs = _signs(hashes)
    if len(signs) < 2:
        return BITS / 2
    return float(np.quantile(((BITS - signs @ signs.T) / 2)[np.triu_indices(len(signs), 1)], 0.75))


def _signs(hashes: Iterable[int]) -> np.ndarray:
    """The bits as -1 and 1, float32 [n, 256]."""
    packed = b"".join(value.to_bytes(BITS // 8, "big") for value in hashes)
    bits = np.unpackbits(np.frombuffer(packed, np.uint8)).reshape(-1, BITS)
    return bits * np.float32(2) - 1
