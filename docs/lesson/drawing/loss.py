"""Figures of the chapters on matching, the loss and training."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from torch import Tensor

import hubconf
from datasets.coco import make_coco_transforms
from datasets.shapes import draw_sample
from docs.lesson.drawing.look import BLUE, CARD, GREY, HEAT, INK, ORANGE, RED, blank, card, figure
from models.matcher import HungarianMatcher
from util.box_ops import box_cxcywh_to_xyxy

OBJECTS = (BLUE, ORANGE, RED)  # colours of the objects of a picture


def outline(axes: Axes, box: Tensor, size: int, color: str, width: float = 1.5, style: str = "-") -> None:
    """Draw a box given as cxcywh fractions of a square image."""
    x0, y0, x1, y1 = (box_cxcywh_to_xyxy(box) * size - 0.5).tolist()
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=width, linestyle=style))


@figure("matching")
@torch.no_grad()
def matching() -> Figure:
    """The boxes of twelve queries over a picture, and the costs with the pairs that the matcher chooses."""
    image, _ = draw_sample(2)
    samples, target = make_coco_transforms("val", val_size=96)(*draw_sample(2))
    outputs = hubconf.detr_tiny_shapes(pretrained=True).eval()([samples])
    matcher = HungarianMatcher(cost_class=1, cost_bbox=5, cost_giou=2)
    logits, boxes = outputs["pred_logits"][0], outputs["pred_boxes"][0]
    cost = matcher.plain_cost(logits, boxes, target)  # [Q, n]
    pairs = dict(zip(*(indices.tolist() for indices in matcher(outputs, [target])[0])))

    sheet, (left, right) = card(7.2, 3.7, 1, 2, width_ratios=(1, 0.8))
    blank(left).imshow(image)
    for query, box in enumerate(boxes):
        chosen = query in pairs
        outline(left, box, 96, OBJECTS[pairs[query]] if chosen else INK, 2.2 if chosen else 0.7, "-" if chosen else ":")
    for number, box in enumerate(target["boxes"]):
        x, y = (box[:2] * 96 - 0.5).tolist()
        left.add_patch(Circle((x, y), 5, facecolor=CARD, edgecolor=OBJECTS[number], linewidth=1.5))
        left.text(x, y, str(number), ha="center", va="center", fontsize=9)

    right.imshow(cost, cmap=HEAT, aspect="auto", vmin=-3, vmax=5)
    for query, row in enumerate(cost.tolist()):
        for number, value in enumerate(row):
            bright = value > 1.5
            right.text(
                number, query, f"{value:.1f}", ha="center", va="center", color=INK if bright else CARD, fontsize=8
            )
            if pairs.get(query) == number:
                box = Rectangle((number - 0.46, query - 0.44), 0.92, 0.88, fill=False, edgecolor=CARD, linewidth=2.5)
                right.add_patch(box)
    right.set_xticks(range(3))
    right.set_yticks(range(12))
    right.tick_params(length=0)
    right.xaxis.tick_top()
    for number, label in enumerate(right.get_xticklabels()):
        label.set_color(OBJECTS[number])
        label.set_fontweight("bold")
    right.spines[:].set_visible(False)
    return sheet


@figure("no-object")
def no_object() -> Figure:
    """A hundred queries, seven with an object, as large as they weigh; the share of the others over their weight."""
    sheet, axes = card(7.2, 2.6, 1, 3, width_ratios=(1, 1, 1.3))
    for one, weight in zip(axes, (1.0, 0.1)):
        blank(one).set(xlim=(-0.6, 9.6), ylim=(9.6, -0.6), aspect="equal")
        for query in range(100):
            matched = query in (4, 17, 31, 48, 62, 76, 93)
            side = 0.86 * (1 if matched else weight**0.5)
            y, x = divmod(query, 10)
            one.add_patch(Rectangle((x - side / 2, y - side / 2), side, side, color=ORANGE if matched else GREY))
        one.set_title(f"w = {weight:g}")
    weights = torch.linspace(0, 1, 101)
    curve = axes[2]
    curve.plot(weights, 93 * weights / (7 + 93 * weights), color=GREY, linewidth=2)
    for weight in (1.0, 0.1):
        share = 93 * weight / (7 + 93 * weight)
        curve.plot(weight, share, "o", color=INK)
        place, side = ((8, -10), "left") if weight < 1 else ((-4, -16), "right")
        curve.annotate(f"{share:.2f}", (weight, share), place, textcoords="offset points", ha=side)
    curve.set(xlabel="w", xlim=(0, 1.04), ylim=(0, 1))
    return sheet
