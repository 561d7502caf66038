"""Drawing masks: objects filled with a colour, and panoptic maps with a legend. Takes and returns PIL images.

Masks are drawn one at a time, each within its bounding rectangle, so that many masks of a large image take little
memory. A small image is enlarged before anything is drawn on it, with smooth edges of the masks.
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

FILL = 0.45  # opacity of an object's colour
OPACITY = {True: 0.7, False: 0.55}  # the same in panoptic images: isthing → opacity
VOID = (60, 60, 64)
BLUR, MARGIN = 0.7, 3  # pixels: blur of the edges of an enlarged mask, and the margin it needs
MAX_TEXT = 14  # length limit of a legend's text, in multiples of the text height
# For successive instances of a class: the change of brightness, and the factor of saturation.
SHADES = ((0, 1.0), (-0.3, 1.0), (0.15, 0.5), (-0.15, 0.75), (-0.45, 0.9), (0.3, 0.3))


def shades(labels: Sequence[int]) -> list[Color]:
    """A colour for each object: a shade of its class's colour, different for each instance."""
    count: dict[int, int] = {}
    colors = []
    for label in labels:
        colors.append(_shade(color_of(label), count.get(label, 0)))
        count[label] = count.get(label, 0) + 1
    return colors


def muted(color: Color) -> Color:
    """A less saturated colour for stuff, so that things stand out."""
    grey = sum(color) / 3
    red, green, blue = (round(0.4 * channel + 0.45 * grey + 0.15 * 200) for channel in color)
    return red, green, blue


def panoptic_colors(segments: Iterable[Mapping[str, Any]]) -> list[Color]:
    """A colour for each segment: things as in `shades`, stuff muted. Takes "category_id" and "isthing"."""
    segments = list(segments)
    colors = shades([segment["category_id"] for segment in segments])
    return [
        color if segment["isthing"] else muted(color_of(segment["category_id"]))
        for segment, color in zip(segments, colors)
    ]


def draw_masks(
    image: Image.Image,
    masks,
    boxes,
    labels: Sequence[str] | None = None,
    colors: Sequence[Color] | None = None,
    *,
    min_side: int = 384,
) -> Image.Image:
    """A copy of the image with translucent masks, their borders, boxes and labels drawn on it.

    Args:
        image: the image.
        masks: bool tensor or array [n, H, W], of the size of `image`. Earlier masks are drawn on top.
        boxes, labels, colors, min_side: see `util.pictures.boxes.draw_boxes`.

    Raises:
        ValueError: masks of a different size, or see `draw_boxes`.
    """
    if tuple(masks.shape[-2:]) != (image.height, image.width) or len(masks) != len(boxes):
        raise ValueError(
            f"masks of shape {list(masks.shape)} for an image of {image.width}x{image.height} pixels and {len(boxes)} "
            "boxes: pass one of shape [height, width] for each box"
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
    """A panoptic map over its image in grey, and below it a legend: classes, numbers of things, shares of the image.

    Stuff has the muted colour of its class, each thing a shade of its class's colour; pixels in no segment are dark.

    Args:
        image: the image.
        ids: int [H, W], segment id of each pixel.
        segments: dictionaries with "id", "category_id", "isthing" and "name", the name to show.
        min_side: an image whose short side is below this is enlarged (0: never).

    Raises:
        ValueError: the map and the image differ in size.
    """
    if ids.shape != (image.height, image.width):
        raise ValueError(f"a map of shape {list(ids.shape)} for an image of {image.width}x{image.height} pixels")
    canvas, factor = _enlarged(image, min_side)
    positions = np.zeros(int(ids.max()) + 1, dtype=np.uint16)  # id → 0 for none, else 1 + its index in the list
    for position, segment in enumerate(segments, start=1):
        if segment["id"] < len(positions):
            positions[segment["id"]] = position
    order = positions[ids]  # [H, W]
    shares = np.bincount(order.ravel(), minlength=len(segments) + 1) / order.size
    palette = [VOID, *panoptic_colors(segments)]
    order = _smooth_map(order, factor)
    opacities = [OPACITY[False], *(OPACITY[bool(segment["isthing"])] for segment in segments)]
    opacity = Image.fromarray(np.array([round(255 * value) for value in opacities], dtype=np.uint8)[order])
    canvas = canvas.convert("L").convert("RGB")  # in grey, so that the colours match the legend
    canvas.paste(Image.fromarray(np.array(palette, dtype=np.uint8)[order]), (0, 0), opacity)
    canvas.paste(PAPER, (0, 0), Image.fromarray(_edges(order, max(1, line_width(canvas.size) // 3))))
    return _with_legend(canvas, _legend(segments, palette[1:], shares))


def _enlarged(image: Image.Image, min_side: int) -> tuple[Image.Image, int]:
    factor = enlargement(image.size, min_side)
    image = image.convert("RGB")
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC), factor


def _shade(color: Color, number: int) -> Color:
    lighter, factor = SHADES[number % len(SHADES)]
    hue, saturation, brightness = colorsys.rgb_to_hsv(*(channel / 255 for channel in color))
    brightness = min(1.0, max(0.25, brightness + lighter))
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation * factor, brightness))
    return red, green, blue


def _filled(mask: np.ndarray, margin: int) -> tuple[slice, slice] | None:
    """The bounding rows and columns of a mask [H, W], with a margin on all sides; None if the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    return slice(int(top), int(rows[-1]) + 1 + margin), slice(int(left), int(columns[-1]) + 1 + margin)


def _smooth(mask: np.ndarray, factor: int) -> np.ndarray:
    """A mask [h, w] enlarged to bool [h · factor, w · factor], with smooth edges."""
    if factor == 1:
        return mask.astype(bool)
    return _grown(mask, factor) > 127


def _smooth_map(order: np.ndarray, factor: int) -> np.ndarray:
    """A map [h, w] enlarged, with smooth edges: each pixel gets the segment that is strongest around it."""
    if factor == 1:
        return order
    size = (order.shape[0] * factor, order.shape[1] * factor)
    best = np.zeros(size, dtype=np.uint8)
    result = np.zeros(size, dtype=order.dtype)
    for position in np.unique(order):
        weight = _grown(order == position, factor)
        result[weight > best] = position
        np.maximum(best, weight, out=best)
    return result


def _grown(mask: np.ndarray, factor: int) -> np.ndarray:
    """The blurred mask [h, w] as uint8 [h · factor, w · factor]: up to 255 inside, 0 far outside."""
    grey = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(BLUR))
    return np.asarray(grey.resize((grey.width * factor, grey.height * factor), Image.Resampling.BICUBIC))


def _fill(pixels: np.ndarray, mask: np.ndarray, corner: tuple[int, int], color: Color, line: int) -> None:
    """Draw a mask [h, w] in place, with its first pixel at `corner` = (row, column) of `pixels` [H, W, 3]."""
    from scipy.ndimage import minimum_filter

    part = pixels[corner[0] : corner[0] + mask.shape[0], corner[1] : corner[1] + mask.shape[1]]
    seam = max(1, line // 3)
    inner = minimum_filter(mask, size=2 * seam + 1)  # no border along the edges of the image
    core = minimum_filter(inner, size=2 * line + 1)
    for channel in range(3):
        plane = part[..., channel]
        mixed = ((1 - FILL) * np.arange(256) + FILL * color[channel]).round().astype(np.uint8)
        np.copyto(plane, mixed[plane], where=core)
        plane[inner & ~core] = color[channel]
        plane[mask & ~inner] = INK[channel]


def _edges(order: np.ndarray, line: int) -> np.ndarray:
    """uint8 [H, W]: 255 along the borders between segments, `line` pixels wide."""
    from scipy.ndimage import maximum_filter

    edges = np.zeros(order.shape, dtype=np.uint8)
    edges[:, 1:][order[:, 1:] != order[:, :-1]] = 255
    edges[1:][order[1:] != order[:-1]] = 255
    return maximum_filter(edges, size=line)


def _legend(
    segments: Sequence[Mapping[str, Any]], colors: Sequence[Color], shares: np.ndarray
) -> list[tuple[list[Color], str, str]]:
    """(colours, name, numbers) of each class: things, then stuff, largest first; last the pixels in no segment."""
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
    """The image with the entries in columns below it; an image narrower than one column is padded at the right."""
    letters = letter_height(picture.size)
    gap = max(3, letters // 2)
    swatch, tall = 2 * letters, letters * 3 // 2
    names = [shorten(name, letters, MAX_TEXT * letters) for _, name, _ in entries]
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
