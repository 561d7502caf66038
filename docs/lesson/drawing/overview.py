"""Chapter 0: the way of the data through DETR, with the tensors of the shipped detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

from datasets.shapes import draw_sample
from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD, Compose, Normalize, ToTensor
from docs.lesson.drawing.look import BLUE, CARD, COLORS, GREEN, HEAT, INK, ORANGE, RED, SIGNED, blank, figure
from models.load import load_detector
from util.box_ops import box_cxcywh_to_xyxy
from util.nested_tensor import nested_tensor_from_tensor_list

WEIGHTS = Path(__file__).parents[3] / "weights" / "detr_tiny_shapes.pth"
WIDTH, HEIGHT, SIDE = 9.6, 4.9, 1.4  # inches: the card, and a picture on it
TOP, BOTTOM = 3.0, 0.6  # lower edges of the two rows


@figure("detr-on-a-page")
def detr_on_a_page() -> Figure:
    """Upper row: from the batch to the memory. Lower row: from the queries to the boxes. Disks show chapters."""
    image, _ = draw_sample(2)
    picture, _ = Compose([ToTensor(), Normalize(IMAGENET_MEAN, IMAGENET_STD)])(image, None)
    model = load_detector(WEIGHTS, "cpu").model
    with torch.no_grad():
        found = model.detect(nested_tensor_from_tensor_list([picture]))
        positions = model.backbone[1](found.features[-1])[0, 12]  # [h, w], one channel
    features = found.projected[0].norm(dim=0)  # [h, w]
    pixels = np.asarray(image) / 255

    sheet = Figure((WIDTH, HEIGHT))
    axes = blank(sheet.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, HEIGHT), autoscale_on=False))
    _picture(axes, 0.35, TOP, pixels, "B·3·H·W", "2")
    _block(axes, 2.25, TOP, BLUE, 4, "3 4")
    _picture(axes, 3.7, TOP, features, "B·D·h·w")
    axes.text(5.37, TOP + SIDE / 2, "+", fontsize=20, ha="center", va="center")
    _picture(axes, 5.65, TOP, positions, "B·D·h·w", "5", cmap=SIGNED)
    _block(axes, 7.55, TOP, GREEN, 6, "6")

    colors = [COLORS[query % len(COLORS)] for query in range(found.queries.shape[1])]
    _queries(axes, 0.35, BOTTOM, colors, "Q·D")
    _block(axes, 2.25, BOTTOM, ORANGE, 6, "7")
    _picture(axes, 3.7, BOTTOM, found.queries[0, :, :12], "B·Q·D", cmap=SIGNED)
    _block(axes, 5.65, BOTTOM, RED, 3, "8")
    _picture(axes, 7.55, BOTTOM, pixels, "B·Q·(C+1)   B·Q·4")
    _boxes(axes, 7.55, BOTTOM, found.outputs, colors)

    for row, spans in ((TOP, ((1.8, 2.2), (3.2, 3.65), (7.1, 7.5))), (BOTTOM, ((1.8, 2.2), (3.2, 3.65), (5.15, 5.6)))):
        for start, end in spans:
            _arrow(axes, (start, row + SIDE / 2), (end, row + SIDE / 2))
    _arrow(axes, (6.6, BOTTOM + SIDE / 2), (7.5, BOTTOM + SIDE / 2))
    turn = (TOP + BOTTOM + SIDE) / 2
    axes.plot([8.02, 8.02, 2.72], [TOP - 0.05, turn, turn], color=INK, linewidth=1.5, solid_joinstyle="round")
    _arrow(axes, (2.72, turn), (2.72, BOTTOM + SIDE + 0.08))
    axes.text(8.15, turn, "S·B·D", va="center")
    return sheet


def _picture(axes: Axes, x: float, y: float, values, shape: str, chapter: str = "", cmap: str = HEAT) -> None:
    """A picture or heat map with its shape below and its chapter at the upper left corner."""
    axes.imshow(values, cmap=cmap, extent=(x, x + SIDE, y, y + SIDE), aspect="auto")
    axes.add_patch(Rectangle((x, y), SIDE, SIDE, fill=False, edgecolor=INK, linewidth=0.8))
    axes.text(x + SIDE / 2, y - 0.2, shape, ha="center", va="center")
    _chapters(axes, x, y + SIDE, chapter)


def _block(axes: Axes, x: float, y: float, color: str, layers: int, chapter: str) -> None:
    """A stack of layers."""
    height = SIDE / layers
    for layer in range(layers):
        box = (x, y + layer * height + 0.02), 0.94, height - 0.04
        axes.add_patch(FancyBboxPatch(*box, boxstyle="round,pad=0,rounding_size=0.05", facecolor=color, edgecolor=INK))
    _chapters(axes, x, y + SIDE, chapter)


def _chapters(axes: Axes, x: float, y: float, chapters: str) -> None:
    for index, chapter in enumerate(chapters.split()):
        axes.add_patch(Circle((x + 0.3 * index, y), 0.15, facecolor=CARD, edgecolor=INK, zorder=4))
        axes.text(x + 0.3 * index, y, chapter, ha="center", va="center_baseline", fontsize=9, weight="bold", zorder=5)


def _queries(axes: Axes, x: float, y: float, colors: list[str], shape: str) -> None:
    """A row of vectors, one colour each."""
    width = SIDE / len(colors)
    for query, color in enumerate(colors):
        box = (x + query * width, y), width, SIDE
        axes.add_patch(Rectangle(*box, facecolor=color, edgecolor=INK, linewidth=0.8))
    axes.text(x + SIDE / 2, y - 0.2, shape, ha="center", va="center")


def _boxes(axes: Axes, x: float, y: float, outputs: dict[str, torch.Tensor], colors: list[str]) -> None:
    """The boxes of the queries that found something, in the colours of the queries."""
    scores = outputs["pred_logits"][0].softmax(-1)[:, :-1].amax(-1)  # [Q]
    for query in (scores > 0.5).nonzero()[:, 0].tolist():
        x0, y0, x1, y1 = (SIDE * box_cxcywh_to_xyxy(outputs["pred_boxes"][0, query])).tolist()
        for color, width in ((CARD, 4), (colors[query], 2.2)):
            corner = x + x0, y + SIDE - y1
            axes.add_patch(Rectangle(corner, x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=width))


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.5, "shrinkA": 0})
