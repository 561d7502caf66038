"""Pictures for tests of near-duplicates and splits: scenes that differ, and frames that move through one."""

import numpy as np
from PIL import Image


def scene(seed: int, size: tuple[int, int] = (160, 120), shift: int = 0) -> Image.Image:
    """A picture of soft blobs, of `size` = (w, h) pixels. Scenes of two seeds differ; `shift` moves the view right."""
    random = np.random.default_rng(seed)
    width, height = size
    small = random.integers(0, 256, (9, 24, 3), dtype=np.uint8)
    wide = Image.fromarray(small).resize((2 * width, height), Image.Resampling.BICUBIC)
    return wide.crop((shift, 0, shift + width, height))
