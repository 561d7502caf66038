"""Pictures of masks: objects filled with a colour, and panoptic maps with a legend. PIL in, PIL out.

One mask is drawn after the other, each inside the rectangle it fills, so that many masks of a large picture take little
memory. A small picture is enlarged before anything is drawn on it, and the edges of its masks become smooth.
"""

import colorsys
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from util.pictures.boxes import (
    INK,
    PAPER,
    Color,
    color_of,
    draw_boxes,
    enlargement,
    letter_height,
    line_width,
    shorten,
)
from util.pictures.fonts import draw_text, text_length

FILL = 0.45  # how much of an object's pixel is its colour
STRENGTH = {True: 0.7, False: 0.55}  # the same on panoptic pictures, of things and of stuff
VOID = (60, 60, 64)
SOFT, MARGIN = 0.7, 3  # pixels by which the edge of a mask that is enlarged is softened, and room for that
WIDEST = 14  # heights of a letter: the text of a legend's entry is no longer
# What instances of one class add to the brightness of its colour, and what part of its strength they keep.
SHADES = ((0, 1.0), (-0.3, 1.0), (0.15, 0.5), (-0.15, 0.75), (-0.45, 0.9), (0.3, 0.3))


def shades(labels: Sequence[int]) -> list[Color]:
    """A colour for each object: its class's, lighter or darker from instance to instance."""
    count: dict[int, int] = {}
    colors = []
    for label in labels:
        colors.append(_shade(color_of(label), count.get(label, 0)))
        count[label] = count.get(label, 0) + 1
    return colors


def muted(color: Color) -> Color:
    """The colour of stuff: what belongs to no object stays behind the objects."""
    grey = sum(color) / 3
    red, green, blue = (round(0.4 * channel + 0.45 * grey + 0.15 * 200) for channel in color)
    return red, green, blue


def draw_masks(
    image: Image.Image,
    masks,
    boxes,
    labels: Sequence[str] | None = None,
    colors: Sequence[Color] | None = None,
    *,
    min_side: int = 384,
) -> Image.Image:
    """A copy of the picture with translucent masks, their borders, boxes and labels drawn on it.

    `masks` [n, H, W], a tensor or array of bools, has the size of `image`; everything else is as in
    `util.pictures.boxes.draw_boxes`. Earlier masks lie above later ones.

    Raises ValueError for masks of another size, and for what `draw_boxes` refuses.
    """
    if tuple(masks.shape[-2:]) != (image.height, image.width) or len(masks) != len(boxes):
        raise ValueError(
            f"masks of shape {list(masks.shape)} on an image of {image.width}x{image.height} pixels with {len(boxes)} "
            "boxes: give one of [height, width] for each box"
        )
    colors = [color_of(0)] * len(masks) if colors is None else list(colors)
    canvas, factor = _enlarged(image, min_side)
    pixels = np.array(canvas)  # [H, W, 3]
    line = max(2, line_width(canvas.size) * 2 // 3)
    for index in reversed(range(len(masks))):
        area = _filled(np.asarray(masks[index], dtype=bool), MARGIN)
        if area is not None:
            shape = _smooth(np.asarray(masks[index])[area], factor)
            _fill(pixels, shape, (area[0].start * factor, area[1].start * factor), colors[index], line)
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * factor
    return draw_boxes(Image.fromarray(pixels), boxes, labels, colors, min_side=0)


def draw_panoptic(
    image: Image.Image, ids: np.ndarray, segments: Sequence[Mapping[str, Any]], *, min_side: int = 384
) -> Image.Image:
    """A panoptic map over its picture in grey, and under it a legend: classes, how many things, their part of it.

    Stuff has its class's colour, muted, and each thing a shade of its class's; what is in no segment is dark.

    Args:
        image: the picture.
        ids: int [H, W], the segment of each pixel.
        segments: {"id", "category_id", "isthing", "name"}, names as they are to be read.
        min_side: a picture whose short side is below it is enlarged (0: never).

    Raises:
        ValueError: a map of another size than the picture.
    """
    if ids.shape != (image.height, image.width):
        raise ValueError(f"a map of {list(ids.shape)} on an image of {image.width}x{image.height} pixels")
    canvas, factor = _enlarged(image, min_side)
    places = np.zeros(int(ids.max()) + 1, dtype=np.uint16)  # id → 0 for none, else 1 + its place in the list
    for place, segment in enumerate(segments, start=1):
        if segment["id"] < len(places):
            places[segment["id"]] = place
    order = places[ids]  # [H, W]
    shares = np.bincount(order.ravel(), minlength=len(segments) + 1) / order.size
    palette = [VOID, *_panoptic_colors(segments)]
    order = _smooth_map(order, factor)
    strengths = [STRENGTH[False], *(STRENGTH[bool(segment["isthing"])] for segment in segments)]
    strength = Image.fromarray(np.array([round(255 * value) for value in strengths], dtype=np.uint8)[order])
    canvas = canvas.convert("L").convert("RGB")  # its own colours would change those of the legend
    canvas.paste(Image.fromarray(np.array(palette, dtype=np.uint8)[order]), (0, 0), strength)
    canvas.paste(PAPER, (0, 0), Image.fromarray(_edges(order, max(1, line_width(canvas.size) // 3))))
    return _with_legend(canvas, _legend(segments, palette[1:], shares))


def _enlarged(image: Image.Image, min_side: int) -> tuple[Image.Image, int]:
    factor = enlargement(image.size, min_side)
    image = image.convert("RGB")
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC), factor


def _shade(color: Color, number: int) -> Color:
    lighter, keep = SHADES[number % len(SHADES)]
    hue, strength, brightness = colorsys.rgb_to_hsv(*(channel / 255 for channel in color))
    brightness = min(1.0, max(0.25, brightness + lighter))
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, strength * keep, brightness))
    return red, green, blue


def _panoptic_colors(segments: Iterable[Mapping[str, Any]]) -> list[Color]:
    segments = list(segments)
    colors = shades([segment["category_id"] for segment in segments])
    return [
        color if segment["isthing"] else muted(color_of(segment["category_id"]))
        for segment, color in zip(segments, colors)
    ]


def _filled(mask: np.ndarray, margin: int) -> tuple[slice, slice] | None:
    """The rows and columns that a mask [H, W] has pixels in, `margin` more on all sides; None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    return slice(int(top), int(rows[-1]) + 1 + margin), slice(int(left), int(columns[-1]) + 1 + margin)


def _smooth(mask: np.ndarray, factor: int) -> np.ndarray:
    """A mask [h, w] enlarged to bool [h · factor, w · factor], without stairs."""
    if factor == 1:
        return mask.astype(bool)
    return _grown(mask, factor) > 127


def _smooth_map(order: np.ndarray, factor: int) -> np.ndarray:
    """A map [h, w] enlarged, without stairs: each pixel goes to the segment that is nearest around it."""
    if factor == 1:
        return order
    size = (order.shape[0] * factor, order.shape[1] * factor)
    best = np.zeros(size, dtype=np.uint8)
    result = np.zeros(size, dtype=order.dtype)
    for place in np.unique(order):
        near = _grown(order == place, factor)
        result[near > best] = place
        np.maximum(best, near, out=best)
    return result


def _grown(mask: np.ndarray, factor: int) -> np.ndarray:
    """uint8 [h · factor, w · factor], up to 255 inside of the mask [h, w] and 0 far from it."""
    grey = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(SOFT))
    return np.asarray(grey.resize((grey.width * factor, grey.height * factor), Image.Resampling.BICUBIC))


def _fill(pixels: np.ndarray, mask: np.ndarray, corner: tuple[int, int], color: Color, line: int) -> None:
    """Draw a mask [h, w] whose first pixel lies at `corner` = (row, column) of `pixels` [H, W, 3], in place."""
    from scipy.ndimage import minimum_filter

    part = pixels[corner[0] : corner[0] + mask.shape[0], corner[1] : corner[1] + mask.shape[1]]
    seam = max(1, line // 3)
    inner = minimum_filter(mask, size=2 * seam + 1)  # edges of the picture are no borders
    core = minimum_filter(inner, size=2 * line + 1)
    for channel in range(3):
        plane = part[..., channel]
        mixed = ((1 - FILL) * np.arange(256) + FILL * color[channel]).round().astype(np.uint8)
        np.copyto(plane, mixed[plane], where=core)
        plane[inner & ~core] = color[channel]
        plane[mask & ~inner] = INK[channel]


def _edges(order: np.ndarray, line: int) -> np.ndarray:
    """uint8 [H, W]: 255 along the lines, `line` pixels wide, where one segment meets another."""
    from scipy.ndimage import maximum_filter

    edges = np.zeros(order.shape, dtype=np.uint8)
    edges[:, 1:][order[:, 1:] != order[:, :-1]] = 255
    edges[1:][order[1:] != order[:-1]] = 255
    return maximum_filter(edges, size=line)


def _legend(
    segments: Sequence[Mapping[str, Any]], colors: Sequence[Color], shares: np.ndarray
) -> list[tuple[list[Color], str, str]]:
    """(colours, name, numbers) for each class: things, then stuff, the largest first; then what is in no segment."""
    groups: dict[int, list[int]] = {}
    for index, segment in enumerate(segments):
        groups.setdefault(segment["category_id"], []).append(index)
    entries = []
    for members in groups.values():
        first = segments[members[0]]
        share = float(sum(shares[index + 1] for index in members))
        count = f"×{len(members)}  " if len(members) > 1 else ""
        shown = list(dict.fromkeys(colors[index] for index in members))
        entries.append((not first["isthing"], -share, (shown, first["name"], count + _percent(share))))
    entries.sort(key=lambda entry: entry[:2])
    rows = [entry for *_, entry in entries]
    return rows + ([([VOID], "nothing", _percent(float(shares[0])))] if shares[0] > 0 else [])


def _percent(share: float) -> str:
    return "<1%" if share < 0.005 else f"{share:.0%}"


def _with_legend(picture: Image.Image, entries: Sequence[tuple[list[Color], str, str]]) -> Image.Image:
    """The picture, and under it the entries in columns; a picture too narrow for one column gets white at its right."""
    letters = letter_height(picture.size)
    gap = max(3, letters // 2)
    swatch, tall = 2 * letters, letters * 3 // 2
    names = [shorten(name, letters, WIDEST * letters) for _, name, _ in entries]
    texts = [f"{name}  {numbers}" for name, (_, _, numbers) in zip(names, entries)]
    wide = swatch + 3 * gap + math.ceil(max((text_length(text, letters) for text in texts), default=0))
    columns = max(1, min(len(entries), (picture.width - gap) // wide))
    rows = math.ceil(len(entries) / columns)
    frame = Image.new(
        "RGB", (max(picture.width, wide + gap), picture.height + (rows * tall + 2 * gap if rows else 0)), PAPER
    )
    frame.paste(picture, (0, 0))
    pen = ImageDraw.Draw(frame)
    for index, ((colors, _, _), text) in enumerate(zip(entries, texts)):
        column, row = divmod(index, rows)
        x, y = gap + column * wide, picture.height + gap + row * tall
        _draw_swatch(pen, (x, y + (tall - letters) // 2, x + swatch, y + (tall + letters) // 2), colors)
        draw_text(pen, (x + swatch + gap, y + tall / 2), text, INK, letters)
    return frame


def _draw_swatch(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colors: Sequence[Color]) -> None:
    """A rectangle with a strip of each colour."""
    x0, y0, x1, y1 = box
    for index, color in enumerate(colors):
        edges = [x0 + (x1 - x0) * place // len(colors) for place in (index, index + 1)]
        pen.rectangle((edges[0], y0, edges[1], y1), fill=color)
    pen.rectangle(box, outline=INK)
