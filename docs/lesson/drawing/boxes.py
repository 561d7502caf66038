"""Figures of the chapters on boxes, batches and data."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

import datasets.transforms as T
from datasets.shapes import draw_sample
from docs.lesson.drawing.look import BLUE, CARD, FAINT, GREY, HEAT, INK, ORANGE, RED, SKY, blank, card, figure
from hubconf import detr_tiny_shapes
from util.box_ops import box_iou, generalized_box_iou
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list

prepare = T.Compose([T.ToTensor(), T.Normalize(T.IMAGENET_MEAN, T.IMAGENET_STD)])
CLASS_COLORS = {1: RED, 2: BLUE, 3: ORANGE}


def rectangle(axes: Axes, box: Tensor | tuple[float, ...], **style) -> None:
    """Add an xyxy box to the axes; `style` as in `Rectangle`."""
    x0, y0, x1, y1 = map(float, box)
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, **style))


@figure("boxes-hull")
def draw_hulls() -> Figure:
    pairs = [((0, 0, 6, 5), (3, 2, 9, 8)), ((0, 0, 4, 4), (6, 5, 9, 8)), ((0, 0, 9, 8), (2, 2, 6, 6))]
    sheet, panels = card(7.2, 2.7, 1, 3)
    for axes, pair in zip(panels, pairs):
        first, second = torch.tensor(pair, dtype=torch.float32)[:, None]  # [1, 4] each
        hull = torch.cat([torch.minimum(first, second)[0, :2], torch.maximum(first, second)[0, 2:]])
        rectangle(axes, hull, facecolor=FAINT, edgecolor=GREY, hatch="////", linewidth=0)
        for box, color in ((first[0], BLUE), (second[0], ORANGE)):
            rectangle(axes, box, facecolor=CARD, linewidth=0)
            rectangle(axes, box, facecolor=color, alpha=0.35, linewidth=0)
        for box, color in ((first[0], BLUE), (second[0], ORANGE)):
            rectangle(axes, box, facecolor="none", edgecolor=color, linewidth=2)
        rectangle(axes, hull, facecolor="none", edgecolor=INK, linestyle=(0, (4, 3)), linewidth=1.5)
        iou, giou = box_iou(first, second)[0].item(), generalized_box_iou(first, second).item()
        axes.set(xlim=(-0.5, 9.5), ylim=(10.2, -0.5), aspect="equal")
        axes.text(2.2, 9.5, f"{iou:.2f}", color=INK, ha="center", va="center", fontsize=12)
        axes.text(6.8, 9.5, f"{giou:.2f}".replace("-", "−"), color=INK, ha="center", va="center", fontsize=12)
        blank(axes)
    return sheet


@figure("boxes-gap")
def draw_gap() -> Figure:
    gaps = torch.linspace(-1, 4, 201)
    still = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    moving = torch.stack([gaps + 1, torch.zeros_like(gaps), gaps + 2, torch.ones_like(gaps)], dim=1)  # [201, 4]
    sheet, (axes,) = card(6, 2.9)
    axes.axhline(0, color=FAINT, linewidth=1)
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.plot(gaps, generalized_box_iou(still, moving)[0], color=ORANGE, linewidth=5, alpha=0.75)
    axes.plot(gaps, box_iou(still, moving)[0][0], color=BLUE, linewidth=1.8)
    axes.set(xlim=(-1, 4), ylim=(-1, 1.45), xticks=range(-1, 5), yticks=(-1, -0.5, 0, 0.5, 1))
    squares = axes.inset_axes((0.2, 0.76, 0.8, 0.24), transform=axes.transAxes)
    for place, gap in ((2.5, -0.5), (6, 0), (10, 1), (15.5, 3)):
        left = place - (2 + gap) / 2
        rectangle(squares, (left, 0, left + 1, 1), facecolor=GREY, edgecolor=INK, alpha=0.5)
        rectangle(squares, (left + 1 + gap, 0, left + 2 + gap, 1), facecolor=SKY, edgecolor=INK, alpha=0.5)
        squares.text(place, 1.5, f"{gap:g}".replace("-", "−"), ha="center", va="bottom", fontsize=9)
    squares.set(xlim=(1, 18.5), ylim=(-0.2, 2.6), aspect="equal")
    blank(squares)
    return sheet


def _batch() -> NestedTensor:
    """The batch of chapter 2: an image of 96 pixels and one of 128."""
    small, _ = prepare(*draw_sample(1))
    large, _ = prepare(*draw_sample(4, size=128))
    return nested_tensor_from_tensor_list([small, large])


def _colors(image: Tensor) -> np.ndarray:
    """A normalised image [3, h, w] as colours [h, w, 3] in 0..1."""
    mean, std = (torch.tensor(value)[:, None, None] for value in (T.IMAGENET_MEAN, T.IMAGENET_STD))
    return (image * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()


@figure("batches-mask")
def draw_batch() -> Figure:
    batch = _batch()
    sheet, panels = card(5.8, 3, 1, 2)
    for axes, image, mask in zip(panels, batch.tensors, batch.mask):
        axes.imshow(_colors(image), extent=(0, 128, 128, 0))
        for line in range(0, 129, 16):
            axes.plot((line, line), (0, 128), (0, 128), (line, line), color=CARD, linewidth=0.7, alpha=0.8)
        height, width = int((~mask).any(1).sum()), int((~mask).any(0).sum())
        for box in ((width, 0, 128, 128), (0, height, width, 128)):
            if box[2] > box[0] and box[3] > box[1]:
                rectangle(axes, box, facecolor="none", edgecolor=INK, hatch="////", linewidth=0)
        rectangle(axes, (0, 0, width, height), facecolor="none", edgecolor=ORANGE, linewidth=2.5)
        axes.set(xlim=(-1, 129), ylim=(129, -1))
        blank(axes)
    return sheet


@figure("batches-leak")
def draw_leak() -> Figure:
    batch = _batch()
    backbone = detr_tiny_shapes(pretrained=True).eval().backbone[0]
    noise = torch.randn(batch.tensors.shape, generator=torch.Generator().manual_seed(0))
    noisy = NestedTensor(torch.where(batch.mask[:, None], noise, batch.tensors), batch.mask)
    with torch.no_grad():
        change = (backbone(noisy)["0"].tensors - backbone(batch)["0"].tensors)[0].abs().amax(0)  # [8, 8]
    sheet, panels = card(5.8, 3, 1, 2)
    panels[0].imshow(_colors(noisy.tensors[0]), extent=(0, 8, 8, 0))
    panels[1].imshow(change, cmap=HEAT, extent=(0, 8, 8, 0))
    for y, x in np.ndindex(8, 8):
        bright = change[y, x] > change.max() / 2
        style = {"color": INK if bright else CARD, "ha": "center", "va": "center", "fontsize": 8}
        panels[1].text(x + 0.5, y + 0.5, f"{change[y, x]:.1f}", **style)
    for axes in panels:
        rectangle(axes, (0, 0, 6, 6), facecolor="none", edgecolor=ORANGE, linewidth=2.5)
        axes.set(xlim=(-0.1, 8.1), ylim=(8.1, -0.1))
        blank(axes)
    return sheet


@figure("data-transforms")
def draw_transforms() -> Figure:
    image, target = draw_sample(3)
    views = [
        (image, target),
        T.hflip(image, target),
        T.crop(image, target, (30, 10, 50, 60)),
        T.resize(image, target, (128, 64)),
    ]
    sheet, panels = card(7.4, 2.1, 1, 4, width_ratios=[view.width for view, _ in views])
    for axes, (view, kept) in zip(panels, views):
        axes.imshow(view, extent=(0, view.width, view.height, 0))
        for box, label in zip(kept["boxes"], kept["labels"].tolist()):
            rectangle(axes, box, facecolor="none", edgecolor=CARD, linewidth=3.5)
            rectangle(axes, box, facecolor="none", edgecolor=CLASS_COLORS[label], linewidth=1.8)
        axes.set(xlim=(-1, view.width + 1), ylim=(97, -1))
        blank(axes)
    return sheet
