"""Grey images with more than 8 bits per sample → 8 bits. The scale comes from the samples of the image alone."""

from __future__ import annotations

import numpy as np
from PIL import Image

UNSIGNED, SAMPLE_FORMAT = (1,), 339  # a TIFF tag
DEPTHS = (8, 10, 12, 14, 16)  # bits per sample of cameras and scanners
SLACK = 0.05  # floats may pass the ends of their range by this share, as they do after interpolation
BRIGHTEST = 16  # floats up to this are light intensities without an upper end; beyond it, they are integers' values
TAILS = (0.5, 99.5)  # percentiles that become black and white where the range has no natural ends


def is_deep(image: Image.Image) -> bool:
    """True for the modes of 16-bit and 32-bit integers and of floats."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def to_eight_bits(image: Image.Image) -> tuple[np.ndarray, str]:
    """Scale a deep image to 8 bits.

    Integers from 0 to 65,535 count as samples of 8, 10, 12, 14 or 16 bits, the fewest that hold the largest value, and
    keep their 8 highest bits: full 16-bit images are divided by 256, those of a 12-bit camera by 16. Floats from 0 to 1
    are multiplied by 255; larger ones that reach past 16 are scaled as integers are, by 1 at 255. Everything else
    (negative or larger samples, floats between) is stretched so that 0.5 % of the samples become black and 0.5 % white;
    without negative or very large samples, 0 stays black. Samples that are not finite become black, +inf white.

    Returns:
        uint8 [h, w], and the range of the samples with the rule that was used, in words; empty for full 16-bit samples.

    Raises:
        ValueError: no sample is finite.
    """
    samples = np.asarray(image)
    if samples.dtype.kind == "f":
        return _from_floats(samples)
    tags = getattr(image, "tag_v2", {})  # of a TIFF file
    if samples.dtype == np.int32 and tags.get(SAMPLE_FORMAT, UNSIGNED) == UNSIGNED and image.format == "TIFF":
        samples = samples.view(np.uint32)
    low, high = int(samples.min()), int(samples.max())
    if low < 0 or high >= 2**16:
        return _stretched(samples.astype(np.float32), low, high)
    # Pillow scales portable greymaps to 16 bits, by the maximum that the file states.
    bits = 16 if image.format == "PPM" else next(depth for depth in DEPTHS if high < 2**depth)
    grey = (samples >> (bits - 8)).astype(np.uint8)
    is_usual = high == 0 or (bits == 16 and (image.mode != "I" or image.format in ("PNG", "PPM")))
    divided = f", divided by {2 ** (bits - 8)}" if bits > 8 else ""
    return grey, "" if is_usual else f"samples of {low}..{high}, which are read as {bits}-bit ones{divided}"


def _from_floats(samples: np.ndarray) -> tuple[np.ndarray, str]:
    finite = samples[np.isfinite(samples)]
    if not finite.size:
        raise ValueError("none of its samples is finite")
    low, high = float(finite.min()), float(finite.max())
    lost = samples.size - finite.size
    if lost:
        samples = np.nan_to_num(samples, nan=low, posinf=high, neginf=low)
    natural = (1, *(2**depth - 1 for depth in DEPTHS)) if high <= 1 + SLACK or high > BRIGHTEST else ()
    white = next((end for end in natural if high <= end * (1 + SLACK)), None)
    if white is None or low < -white * SLACK:
        grey, rule = _stretched(samples, low, high, finite)
    else:
        grey = (samples * np.float32(255 / white)).round().clip(0, 255).astype(np.uint8)
        taken = "taken as they are" if white == 255 else f"scaled from 0..{white} to 0..255"
        rule = f"samples of {low:.4g}..{high:.4g}, which are {taken}"
    return grey, rule + (f", and {lost:,} that are not finite" if lost else "")


def _stretched(
    samples: np.ndarray, low: float, high: float, finite: np.ndarray | None = None
) -> tuple[np.ndarray, str]:
    """Stretch the range between the `TAILS` to 0..255."""
    black, white = np.percentile(samples if finite is None else finite, TAILS).tolist()
    if 0 <= low and high <= BRIGHTEST:
        black = 0.0
    if black >= white:  # nearly all samples are equal
        black, white = low, high
    scale = 255 / (white - black) if white > black else 0.0
    grey = ((samples - black) * scale + (0 if scale else 128)).round().clip(0, 255).astype(np.uint8)
    return grey, f"samples of {low:.6g}..{high:.6g}, which are stretched from {black:.6g}..{white:.6g} to 0..255"
