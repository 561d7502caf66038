"""Drawing boxes with labels, images side by side, and contact sheets. Takes and returns PIL images.

Boxes are xyxy in pixels of the given image. Lines and text scale with the image, and a small image is enlarged before
anything is drawn on it.
"""

import colorsys
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from util.pictures.fonts import LONGEST, draw_text, fit_length, text_length

Color = tuple[int, int, int]

MAX_ENLARGED = 4096  # pixels: no side is enlarged beyond this
MIN_LETTERS = 11  # pixels
MAX_TAGGED = 0.08  # share of an image that labels may cover before their text shrinks
INK, PAPER = (25, 25, 30), (255, 255, 255)


def color_of(class_id: int) -> Color:
    """The fixed colour of a class; those of neighbouring ids differ most.

    The hue advances by the golden ratio, so that any range of ids covers the circle evenly; saturation and brightness
    change with each lap.
    """
    hue = (0.58 + class_id * (math.sqrt(5) - 1) / 2) % 1
    lap = class_id // 7
    saturation, brightness = (0.8, 0.45, 1.0)[lap % 3], (0.97, 0.7, 0.84)[lap // 3 % 3]
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, brightness))
    return red, green, blue


def denormalize(tensor, mean: Sequence[float], std: Sequence[float]) -> Image.Image:
    """The RGB image that a normalised tensor [3, H, W] was made from."""
    values = _as_array(tensor)
    if values.ndim != 3 or len(values) != 3:
        raise ValueError(f"an image tensor must have shape [3, H, W], got {list(values.shape)}")
    rgb = values.transpose(1, 2, 0) * np.array(std) + np.array(mean)  # [H, W, 3] in [0, 1]
    return Image.fromarray(np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8))


def enlargement(size: tuple[int, int], min_side: int) -> int:
    """The integer factor that enlarges the short side of `size` to `min_side`, limited by MAX_ENLARGED."""
    return max(1, min(math.ceil(min_side / min(size)), MAX_ENLARGED // max(size)))


def line_width(size: tuple[int, int]) -> int:
    """The width of a line on an image of `size`, in pixels."""
    return max(2, round(min(size) / 180))


def draw_boxes(
    image: Image.Image,
    boxes,
    labels: Sequence[str] | None = None,
    colors: Sequence[Color] | None = None,
    *,
    min_side: int = 384,
) -> Image.Image:
    """A copy of the image with boxes and their labels drawn on it.

    Args:
        image: the image.
        boxes: tensor, array or list [n, 4], xyxy in pixels of `image`, clipped to it. Earlier boxes are drawn on top.
        labels: text for each box.
        colors: colour of each box; by default the same for all.
        min_side: an image whose short side is below this is enlarged by an integer factor (0: never).

    Raises:
        ValueError: a box is not finite or its second corner is before its first, or the lists differ in length.
    """
    boxes = _as_boxes(boxes)
    labels = [""] * len(boxes) if labels is None else list(labels)
    colors = [color_of(0)] * len(boxes) if colors is None else list(colors)
    if not len(boxes) == len(labels) == len(colors):
        raise ValueError(f"{len(boxes)} boxes with {len(labels)} labels and {len(colors)} colours: pass one per box")

    image = image.convert("RGB")
    factor = enlargement(image.size, min_side)
    canvas = image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    boxes = np.clip(boxes * factor, 0, [canvas.width - 1, canvas.height - 1] * 2)
    pen = ImageDraw.Draw(canvas)
    line = line_width(canvas.size)
    seam = max(1, line // 3)  # a dark outline keeps the line visible on a background of the same colour

    for box, color in reversed(list(zip(boxes, colors, strict=True))):
        x0, y0, x1, y1 = (int(edge) for edge in np.round(box))
        pen.rectangle((x0 - seam, y0 - seam, x1 + seam, y1 + seam), outline=INK, width=seam)
        pen.rectangle((x0, y0, x1, y1), outline=color, width=line)
    _draw_labels(canvas, boxes, labels, colors)
    return canvas


def side_by_side(pictures: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Images in a row, each below its title."""
    if not pictures:
        raise ValueError("side_by_side needs at least one (title, image)")
    titles, images = zip(*pictures, strict=True)
    letters = letter_height(max(images, key=lambda image: min(image.size)).size) * 5 // 4
    band = 2 * letters
    framed = []
    for title, image in zip(titles, images, strict=True):
        frame = Image.new("RGB", (image.width, image.height + band), PAPER)
        frame.paste(image, (0, band))
        pen = ImageDraw.Draw(frame)
        title = shorten(title, letters, image.width)
        draw_text(pen, ((image.width - text_length(title, letters)) / 2, band / 2), title, INK, letters)
        framed.append(frame)
    return contact_sheet(framed, columns=len(framed))


def contact_sheet(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Images in a grid, row by row. All cells are as large as the largest image; the images are not scaled."""
    if not images or columns < 1:
        raise ValueError(f"a contact sheet needs at least 1 image and 1 column, got {len(images)} and {columns}")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    width, height = max(image.width for image in images), max(image.height for image in images)
    gap = max(4, min(width, height) // 40)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), PAPER)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        sheet.paste(image, (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet


def ground_truth_beside_prediction(
    image: Image.Image,
    target_boxes,
    target_names: Sequence[str],
    pred_boxes,
    pred_names: Sequence[str],
    scores: Sequence[float] | None = None,
    *,
    colors: Mapping[str, Color] | None = None,
    min_side: int = 384,
) -> Image.Image:
    """One image: the ground truth on the left, the prediction on the right, its best boxes on top.

    Boxes are xyxy in pixels of `image`. `colors` maps class names to colours, such as
    `{category["name"]: color_of(category["id"]) for category in categories}`; by default the classes in this image get
    distinct colours.
    """
    pred_boxes, pred_names = _as_boxes(pred_boxes), list(pred_names)
    if colors is None:
        names = sorted({*target_names, *pred_names})
        colors = {name: color_of(index) for index, name in enumerate(names)}
    unknown = {*target_names, *pred_names} - colors.keys()
    if unknown:
        raise ValueError(f"`colors` lacks the classes {sorted(unknown)}: add them")
    pred_labels, pred_colors = pred_names, [colors[name] for name in pred_names]
    if scores is not None:
        if not len(scores) == len(pred_boxes) == len(pred_names):
            raise ValueError(
                f"{len(pred_boxes)} predicted boxes with {len(pred_names)} names and {len(scores)} scores: "
                "pass one of each for every box"
            )
        order = [int(i) for i in np.argsort(-_as_array(scores), kind="stable")]
        pred_labels = [f"{pred_names[i]} {float(scores[i]):.0%}" for i in order]
        pred_boxes, pred_colors = pred_boxes[order], [pred_colors[i] for i in order]
    target_colors = [colors[name] for name in target_names]
    return side_by_side(
        [
            ("ground truth", draw_boxes(image, target_boxes, target_names, target_colors, min_side=min_side)),
            ("prediction", draw_boxes(image, pred_boxes, pred_labels, pred_colors, min_side=min_side)),
        ]
    )


def _as_array(values) -> np.ndarray:
    if hasattr(values, "detach"):  # a tensor, on any device
        values = values.detach().cpu().double()
    return np.asarray(values, dtype=np.float64)


def _as_boxes(boxes) -> np.ndarray:
    boxes = _as_array(boxes)
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape [n, 4], got {list(boxes.shape)}")
    for index, box in enumerate(boxes):
        if not np.isfinite(box).all() or (box[2:] < box[:2]).any():
            raise ValueError(
                f"box {index} is {box.tolist()}: boxes must be finite x0, y0, x1, y1 in pixels with x0 <= x1 and "
                "y0 <= y1"
            )
    return boxes


def letter_height(size: tuple[int, int]) -> int:
    """The height of text on an image of `size`, in pixels."""
    return max(MIN_LETTERS, round(min(size) / 30))


def shorten(text: str, letters: int, width: float) -> str:
    """The text on one line, truncated to at most `width` pixels at this text height."""
    return fit_length(" ".join(text[:LONGEST].split()), letters, width)


def _draw_labels(canvas, boxes, labels, colors):
    """Label each box at one of its corners, inside the image, where it hides least of other labels and small boxes."""
    pen = ImageDraw.Draw(canvas)
    width, height = canvas.size
    letters = _crowded_letter_height(canvas.size, labels)
    margin = max(2, letters // 5)
    tall = letters + 2 * margin
    taken = np.zeros((0, 4))
    tags = []
    for box, label, color in zip(boxes, labels, colors, strict=True):
        text = shorten(label, letters, width - 2 * margin)
        if not text:
            continue
        wide = math.ceil(text_length(text, letters)) + 2 * margin
        x0, y0, x1, y1 = box
        corners = [(x, y) for y in (y0 - tall, y0, y1, y1 - tall) for x in (x0, x1 - wide)]
        corners = [(min(max(x, 0), width - wide), min(max(y, 0), height - tall)) for x, y in corners]
        places = np.array([(x, y, x + wide, y + tall) for x, y in corners])  # [8, 4]
        hidden = 10 * _overlap(places, taken) + _overlap(places, boxes)
        place = places[(hidden + 0.02 * np.arange(len(places))).argmin()]  # if equal, above the box on the left
        taken = np.vstack([taken, place])
        tags.append((place, text, color))
    for place, text, color in reversed(tags):
        x0, y0, x1, y1 = (round(float(edge)) for edge in place)
        pen.rectangle((x0, y0, x1, y1), fill=color)
        light = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
        draw_text(pen, (x0 + margin, (y0 + y1) / 2), text, INK if light else PAPER, letters)


def _crowded_letter_height(size: tuple[int, int], labels: Sequence[str]) -> int:
    """The text height, reduced by at most half if the labels would cover more than `MAX_TAGGED`."""
    usual = letter_height(size)
    area = sum(text_length(" ".join(label[:LONGEST].split()), usual) for label in labels if label) * 1.4 * usual
    share = area / (size[0] * size[1])
    return usual if share <= MAX_TAGGED else max(MIN_LETTERS, usual // 2, round(usual * math.sqrt(MAX_TAGGED / share)))


def _overlap(places, others):
    """How much of the other boxes [m, 4] each place [n, 4] covers: the sum of the covered fractions of their areas."""
    low = np.maximum(places[:, None, :2], others[None, :, :2])  # [n, m, 2]
    high = np.minimum(places[:, None, 2:], others[None, :, 2:])
    area = np.clip(others[:, 2:] - others[:, :2], 1, None).prod(axis=1)  # a box of no width counts as one pixel wide
    return (np.clip(high - low, 0, None).prod(axis=2) / area).sum(axis=1)
