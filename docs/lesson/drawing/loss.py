"""Figures of the chapters on matching, the loss and training."""

from __future__ import annotations

import argparse

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from torch import Tensor

import hubconf
from datasets.coco import make_coco_transforms
from datasets.shapes import draw_sample
from docs.lesson.drawing.look import BLUE, CARD, FAINT, GREEN, GREY, HEAT, INK, ORANGE, RED, blank, card, figure
from engine import train_step
from main import get_args_parser
from models import build_model
from models.matcher import HungarianMatcher
from training.optim import build_optimizer
from util.box_ops import box_cxcywh_to_xyxy
from util.nested_tensor import nested_tensor_from_tensor_list

OBJECTS = (BLUE, ORANGE, RED)  # colours of the objects of a picture
SHOWN = (0, 20, 60)  # steps of the training whose boxes are drawn
TRAINING = """
    --backbone tiny --backbone_norm bn --backbone_weights none --trainable_layers 5 --num_classes 4 --num_queries 12
    --hidden_dim 128 --dim_feedforward 512 --enc_layers 1 --dec_layers 2 --dropout 0 --pos_temperature 20
    --bbox_loss_coef 2.5 --giou_loss_coef 1 --eos_coef 0.2 --lr 1e-3 --lr_backbone 1e-3 --device cpu
"""  # as on the page


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


@figure("training", trained=True)
def training() -> Figure:
    """The losses of four pictures over sixty steps, and the matched boxes after some of them."""
    torch.manual_seed(0)
    args = argparse.ArgumentParser(parents=[get_args_parser()]).parse_args(TRAINING.split())
    model, criterion, _ = build_model(args)
    optimizer = build_optimizer(model, args)
    pictures = [draw_sample(index, split="train", size=64) for index in range(4)]
    images, targets = zip(*[make_coco_transforms("val", val_size=64)(*picture) for picture in pictures])
    samples = nested_tensor_from_tensor_list(list(images))
    names = ("loss_ce", "loss_bbox", "loss_giou")

    sheet = Figure((7.2, 3.3), layout="constrained")
    left, right = sheet.subfigures(1, 2, width_ratios=(1, 1.35))
    rows, curves = right.subplots(len(SHOWN), 4), []
    for step in range(SHOWN[-1] + 1):
        if step in SHOWN:
            _draw_matched(rows[SHOWN.index(step)], model, criterion.matcher, samples, pictures, targets, step)
        if step == 45:
            for group in optimizer.param_groups:
                group["lr"] /= 10
        model.train()
        losses = train_step(model, criterion, samples, targets, optimizer)
        curves.append([losses[name].item() * criterion.weight_dict[name] for name in names])
    axes = left.subplots()
    for values, color in zip(zip(*curves), (BLUE, ORANGE, GREEN)):
        axes.plot(values, color=color, linewidth=2)
    axes.set(yscale="log", xlim=(0, SHOWN[-1]))
    axes.set_xticks((0, 20, 45, 60))
    axes.grid(color=FAINT)
    return sheet


@torch.no_grad()
def _draw_matched(row, model, matcher, samples, pictures, targets, step: int) -> None:
    """The boxes of matched queries over each picture, in the colours of their objects' classes."""
    outputs = model.eval()(samples)
    for image, (axes, (queries, objects)) in enumerate(zip(row, matcher(outputs, targets))):
        blank(axes).imshow(pictures[image][0])
        labels = targets[image]["labels"][objects].tolist()
        for box, label in zip(outputs["pred_boxes"][image, queries], labels):
            outline(axes, box, 64, CARD, 2.4)
            outline(axes, box, 64, OBJECTS[label - 1], 1.4)
    row[0].text(-6, 32, str(step), ha="right", va="center")
