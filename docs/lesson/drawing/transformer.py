"""Figures of chapters 6 to 8: the layers of the transformer, where places and queries look, and the heads."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle
from torch import Tensor, nn

import datasets.transforms as T
import hubconf
from datasets.shapes import draw_sample
from docs.lesson.drawing.look import BLUE, CARD, COLORS, FAINT, GREEN, GREY, HEAT, INK, ORANGE, RED, blank, card, figure
from models.attention_maps import record_attention
from util.box_ops import box_cxcywh_to_xyxy
from util.nested_tensor import nested_tensor_from_tensor_list

SIZE = 96  # of a picture, pixels
PICTURES = 128


class Seen(NamedTuple):
    """Pictures and what the shipped detector makes of them; `L` decoder layers, `Q` queries."""

    pictures: list[np.ndarray]  # [96, 96, 3]
    rows: Tensor  # the last encoder layer's weights [B, h, w, h, w]
    boxes: Tensor  # xyxy, pixels [L, B, Q, 4]
    scores: Tensor  # [L, B, Q]
    lonely_boxes: Tensor  # the last layer's, if each query sees only itself [B, Q, 4]
    lonely_scores: Tensor  # [B, Q]


@cache
@torch.no_grad()
def seen() -> Seen:
    """The first pictures of the built-in validation set."""
    model = hubconf.detr_tiny_shapes(pretrained=True).eval()
    to_input = T.Compose([T.ToTensor(), T.Normalize(T.IMAGENET_MEAN, T.IMAGENET_STD)])
    samples = [draw_sample(index) for index in range(PICTURES)]
    batch = nested_tensor_from_tensor_list([to_input(*sample)[0] for sample in samples])
    with record_attention(model) as maps:
        parts = model.detect(batch)
    encoding = model.backbone[1](parts.features[-1])
    hs, _ = model.transformer(parts.projected, parts.mask, model.query_embed.weight, encoding)
    lonely = _alone(model, parts.memory, encoding, parts.mask)
    (boxes, scores), (lonely_boxes, lonely_scores) = (_read(model, states) for states in (hs, lonely))
    pictures = [np.asarray(image) for image, _ in samples]
    return Seen(pictures, maps.encoder[-1], boxes, scores, lonely_boxes, lonely_scores)


def _alone(model: nn.Module, memory: Tensor, encoding: Tensor, mask: Tensor) -> Tensor:
    """The last states [B, Q, D] of a decoder whose self-attention shows each query only itself."""
    query_pos = model.query_embed.weight[:, None].expand(-1, len(memory), -1)
    states = model.transformer.decoder(
        torch.zeros_like(query_pos),
        memory.flatten(2).permute(2, 0, 1),
        tgt_mask=~torch.eye(len(query_pos), dtype=torch.bool),
        memory_key_padding_mask=mask.flatten(1),
        pos=encoding.flatten(2).permute(2, 0, 1),
        query_pos=query_pos,
    )
    return states[-1].transpose(0, 1)


def _read(model: nn.Module, states: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes in pixels and scores of the states of queries."""
    boxes = box_cxcywh_to_xyxy(model.bbox_embed(states).sigmoid()) * SIZE
    return boxes, model.class_embed(states).softmax(-1)[..., :-1].amax(-1)


# --- Pictures ---------------------------------------------------------------------------------------------------------


def _show(axes: Axes, picture: np.ndarray, boxes: Tensor, scores: Tensor) -> None:
    """A picture with the boxes of score > 0.5; the colour is the query's."""
    blank(axes).imshow(picture, extent=(0, SIZE, SIZE, 0))
    for query in (scores > 0.5).nonzero().flatten().tolist():
        x0, y0, x1, y1 = boxes[query].tolist()
        for color, width in ((CARD, 4.0), (COLORS[query % len(COLORS)], 2.0)):
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=color, linewidth=width))
    axes.set(xlim=(-3, SIZE + 3), ylim=(SIZE + 3, -3))


@figure("encoder-rows")
def encoder_rows() -> Figure:
    """A picture with its places, and the rows of weights of three of them with the outlines of the objects."""
    index, places = 26, [(4, 2), (1, 4), (1, 1)]
    data = seen()
    sheet, axes = card(8, 2.2, 1, 4)
    for number, panel in enumerate(axes):
        blank(panel).set(xlim=(0, 6), ylim=(6, 0), aspect="equal")
        if number == 0:
            panel.imshow(data.pictures[index], extent=(0, 6, 6, 0))
            for line in range(1, 6):
                panel.plot([0, 6, np.nan, line, line], [line, line, np.nan, 0, 6], color=CARD, linewidth=0.6)
        else:
            panel.imshow(data.rows[index][places[number - 1]].numpy(), cmap=HEAT, extent=(0, 6, 6, 0), vmin=0)
            centres = (np.arange(SIZE) + 0.5) / SIZE * 6
            for mask in draw_sample(index)[1]["masks"]:
                panel.contour(centres, centres, mask.numpy(), levels=[0.5], colors=[CARD], linewidths=1.2)
        for label, (y, x) in enumerate(places, 1):
            if number in (0, label):
                panel.add_patch(Rectangle((x, y), 1, 1, fill=False, color=RED, linewidth=2.5, zorder=3))
                panel.text(x + 0.5, y + 0.5, label, color=CARD, weight="bold", ha="center", va="center", zorder=4)
    return sheet


@figure("query-centres")
def query_centres() -> Figure:
    """For each query, the centres of its boxes with score > 0.5 in all pictures."""
    data = seen()
    boxes, scores = data.boxes[-1], data.scores[-1]
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    sheet, axes = card(8, 2.9, 2, 6)
    for query, panel in enumerate(axes):
        x, y = centres[scores[:, query] > 0.5, query].T.numpy()
        panel.add_patch(Rectangle((0, 0), SIZE, SIZE, facecolor="white", edgecolor=GREY, linewidth=0.8))
        panel.scatter(x, y, s=9, color=BLUE, alpha=0.7, linewidths=0)
        panel.text(4, 4, query, color=INK, ha="left", va="top", size=9)
        blank(panel).set(xlim=(-2, SIZE + 2), ylim=(SIZE + 2, -2), aspect="equal")
    return sheet


@figure("lonely-queries")
def lonely_queries() -> Figure:
    """Boxes with and without self-attention among the queries."""
    indices, data = (4, 14, 34), seen()
    sheet, axes = card(6, 4, 2, 3)
    for column, index in enumerate(indices):
        picture = data.pictures[index]
        _show(axes[column], picture, data.boxes[-1, index], data.scores[-1, index])
        _show(axes[column + 3], picture, data.lonely_boxes[index], data.lonely_scores[index])
    return sheet


@figure("layers-boxes")
def layers_boxes() -> Figure:
    """The boxes of one picture after each decoder layer."""
    index, data = 14, seen()
    sheet, axes = card(6, 2.1, 1, 3)
    for layer, panel in enumerate(axes):
        _show(panel, data.pictures[index], data.boxes[layer, index], data.scores[layer, index])
        panel.text(4, 4, layer + 1, color=CARD, weight="bold", ha="left", va="top")
    return sheet


# --- Diagrams ---------------------------------------------------------------------------------------------------------


def _box(axes: Axes, x: float, y: float, text: str, color: str = INK, width: float = 0.62, height: float = 0.5) -> None:
    """A rounded box around (x, y)."""
    shape = "round,pad=0,rounding_size=0.12"
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, shape, facecolor="white", edgecolor=color, zorder=3
        )
    )
    axes.text(x, y, text, ha="center", va="center_baseline", color=color, zorder=4)


def _plus(axes: Axes, x: float, y: float) -> None:
    axes.add_patch(Circle((x, y), 0.16, facecolor="white", edgecolor=INK, zorder=3))
    axes.plot([x - 0.09, x + 0.09, np.nan, x, x], [y, y, np.nan, y - 0.09, y + 0.09], color=INK, linewidth=1, zorder=4)


def _arrow(axes: Axes, *points: tuple[float, float], color: str = INK) -> None:
    """A line through the points with a head at the last one."""
    if len(points) > 2:
        axes.plot(*zip(*points[:-1]), color=color, linewidth=1.2, zorder=2, solid_joinstyle="round")
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    axes.annotate("", points[-1], points[-2], arrowprops=style, zorder=2)


def _end(axes: Axes, x: float) -> float:
    """A residual sum on the line y = 0, and the norm behind it; returns where the norm ends."""
    _plus(axes, x, 0)
    _arrow(axes, (x + 0.16, 0), (x + 0.4, 0))
    _box(axes, x + 0.65, 0, "N", width=0.5)
    return x + 0.9


def _attention(axes: Axes, x: float, own: str, other: tuple[str, str] | None = None) -> float:
    """An attention whose query comes from the line y = 0 and has the position `own`.

    Key and value come from that line too, or from `other`: (memory, its position). Returns where the norm ends.
    """
    q, k, v = 0.8, 1.6, 2.4  # heights
    first = x + 0.25
    if other is None:
        _arrow(axes, (first, 0), (first, v), (x + 1.35, v), color=BLUE)
        _arrow(axes, (first, (q + k) / 2), (x + 0.64, (q + k) / 2), color=BLUE)
        _plus(axes, x + 0.8, (q + k) / 2)
        _arrow(axes, (x + 0.8, 0.42), (x + 0.8, (q + k) / 2 - 0.16), color=ORANGE)
        axes.text(x + 0.8, 0.32, own, color=ORANGE, ha="center", va="center", weight="bold")
        for height in (q, k):
            _arrow(axes, (x + 0.96, (q + k) / 2), (x + 1.15, (q + k) / 2), (x + 1.15, height), (x + 1.35, height))
    else:
        memory, position = other
        _arrow(axes, (first, 0), (first, q), (x + 0.64, q), color=BLUE)
        _plus(axes, x + 0.8, q)
        _arrow(axes, (x + 0.8, 0.42), (x + 0.8, q - 0.16), color=ORANGE)
        axes.text(x + 0.8, 0.32, own, color=ORANGE, ha="center", va="center", weight="bold")
        _arrow(axes, (x + 0.96, q), (x + 1.35, q))
        axes.text(first, 3.2, memory, color=GREEN, ha="center", va="center", weight="bold")
        _arrow(axes, (first, 3.05), (first, v), (x + 1.35, v), color=GREEN)
        _arrow(axes, (first, v), (first, k), (x + 0.64, k), color=GREEN)
        _plus(axes, x + 0.8, k)
        _arrow(axes, (x + 0.8, 2.05), (x + 0.8, k + 0.16), color=ORANGE)
        axes.text(x + 0.8, 2.16, position, color=ORANGE, ha="center", va="center", weight="bold")
        _arrow(axes, (x + 0.96, k), (x + 1.35, k))
    for height, letter in ((q, "Q"), (k, "K"), (v, "V")):
        _box(axes, x + 1.6, height, letter, width=0.5)
    for height in (q, k):
        _arrow(axes, (x + 1.85, height), (x + 2.05, height), (x + 2.05, (q + k) / 2), (x + 2.25, (q + k) / 2))
    _box(axes, x + 2.5, (q + k) / 2, "A", color=RED, width=0.5)
    _arrow(axes, (x + 2.75, (q + k) / 2), (x + 2.98, (q + k) / 2))
    _arrow(axes, (x + 1.85, v), (x + 3.3, v), (x + 3.3, (q + k) / 2 + 0.25))
    _box(axes, x + 3.3, (q + k) / 2, "A·V", color=RED)
    _arrow(axes, (x + 3.61, (q + k) / 2), (x + 3.9, (q + k) / 2), (x + 3.9, 0.16))
    _arrow(axes, (x, 0), (x + 3.74, 0), color=BLUE)
    return _end(axes, x + 3.9)


def _feed_forward(axes: Axes, x: float) -> float:
    """Two linear layers with a ReLU between them beside the line y = 0; returns where the norm ends."""
    height = 0.8
    _arrow(axes, (x, 0), (x + 2.04, 0), color=BLUE)
    _arrow(axes, (x + 0.2, 0), (x + 0.2, height), (x + 0.4, height), color=BLUE)
    for step, text in enumerate(("$W_1$", "", "$W_2$")):
        _box(axes, x + 0.65 + 0.5 * step, height, text, width=0.5)
    axes.plot([x + 0.97, x + 1.15, x + 1.33], [height - 0.1, height - 0.1, height + 0.12], color=INK, zorder=4)
    _arrow(axes, (x + 1.9, height), (x + 2.2, height), (x + 2.2, 0.16))
    return _end(axes, x + 2.2)


def _input(axes: Axes, text: str) -> None:
    axes.text(-0.15, 0, text, color=BLUE, ha="right", va="center", weight="bold")


@figure("encoder-layer")
def encoder_layer() -> Figure:
    """Where the encoding p enters an encoder layer: Q and K, but not V."""
    sheet, (axes,) = card(7, 2.6)
    _input(axes, "x")
    x = _feed_forward(axes, _attention(axes, 0, "p"))
    _arrow(axes, (x, 0), (x + 0.4, 0), color=BLUE)
    blank(axes).set(xlim=(-0.5, x + 0.5), ylim=(-0.4, 2.8), aspect="equal")
    return sheet


@figure("decoder-layer")
def decoder_layer() -> Figure:
    """Where the positions q of the queries and p of the memory m enter a decoder layer."""
    sheet, (axes,) = card(9, 2.4)
    _input(axes, "x")
    x = _attention(axes, 0, "q")
    x = _feed_forward(axes, _attention(axes, x, "q", ("m", "p")))
    _arrow(axes, (x, 0), (x + 0.4, 0), color=BLUE)
    blank(axes).set(xlim=(-0.5, x + 0.5), ylim=(-0.4, 3.4), aspect="equal")
    return sheet


@figure("heads")
def heads() -> Figure:
    """The states of all layers through one linear layer to classes, and through three to boxes."""
    sheet, (axes,) = card(7.5, 3)
    for layer in range(3):  # L sheets of Q rows
        left, bottom = 0.5 - 0.14 * layer, 0.45 + 0.14 * (2 - layer)
        axes.add_patch(Rectangle((left, bottom), 1.6, 1.5, facecolor="white", edgecolor=INK, zorder=layer))
        for row in range(1, 5):
            line = bottom + 0.3 * row
            axes.plot([left, left + 1.6], [line, line], color=FAINT, linewidth=0.8, zorder=layer)
    axes.text(1.02, 0.12, "[L, B, Q, D]", ha="center", va="center", color=BLUE)
    for height in (1.85, 0.75):
        _arrow(axes, (2.15, 1.3), (2.4, 1.3), (2.4, height), (2.75, height), color=BLUE)
    _box(axes, 3.03, 1.85, "W", color=RED, width=0.56)
    _arrow(axes, (3.31, 1.85), (5.95, 1.85))
    for step, text in enumerate(("$W_1$", "$W_2$", "$W_3$", "σ")):
        x = 3.03 + 0.76 * step
        _box(axes, x, 0.75, text, color=GREEN if step == 3 else RED, width=0.56)
        _arrow(axes, (x + 0.28, 0.75), (x + 0.48 if step < 3 else 5.95, 0.75))
    for bar, height in enumerate((0.04, 0.5, 0.1, 0.06, 0.16)):  # C + 1 bars, the last for no object
        color = GREY if bar == 4 else BLUE
        axes.add_patch(Rectangle((6.1 + 0.22 * bar, 1.6), 0.15, height, facecolor=color))
    axes.text(6.98 + 0.15 / 2, 1.85, "∅", ha="center", va="bottom", color=GREY)
    axes.plot([6.05, 7.2], [1.6, 1.6], color=INK, linewidth=0.8)
    axes.text(6.6, 1.4, "[L, B, Q, C+1]", ha="center", va="center", color=BLUE)
    axes.add_patch(Rectangle((6.1, 0.42), 1.05, 0.66, facecolor="white", edgecolor=GREY))
    axes.add_patch(Rectangle((6.4, 0.55), 0.5, 0.36, fill=False, edgecolor=ORANGE, linewidth=2))
    axes.plot(6.65, 0.73, "o", markersize=3.5, color=ORANGE)
    axes.text(6.6, 0.2, "[L, B, Q, 4]", ha="center", va="center", color=BLUE)
    blank(axes).set(xlim=(0.1, 7.4), ylim=(0, 2.4), aspect="equal")
    return sheet
