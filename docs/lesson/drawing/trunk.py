"""Figures of chapters 3 to 5: the blocks of a ResNet, the backbone, position encodings."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle
from torch import nn

from datasets.pixels import normalize, to_tensor
from datasets.shapes import draw_sample
from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD
from docs.lesson.drawing.look import BLUE, CARD, FAINT, GREEN, GREY, HEAT, INK, ORANGE, RED, SIGNED, blank, card, figure
from docs.lesson.minimal_detr import sine_positions
from models.backbone import Backbone, BackboneBase
from models.load import load_detector
from models.resnet import Bottleneck, build_resnet
from util.nested_tensor import nested_tensor_from_tensor_list

IDENTITY, PROJECTED = BLUE, ORANGE  # the two kinds of blocks


def resnet50() -> nn.Module:
    """ResNet-50 without memory, for its shapes."""
    with torch.device("meta"):
        return build_resnet("resnet50", norm_layer=nn.BatchNorm2d)


@figure("resnet-blocks")
def blocks() -> Figure:
    sheet, axes = card(6.4, 4.4, 1, 2)
    stage = resnet50().layer2
    for ax, block, color in zip(axes, (stage[1], stage[0]), (IDENTITY, PROJECTED)):
        _draw_block(blank(ax), block, color)
    return sheet


def _draw_block(ax: Axes, block: Bottleneck, color: str) -> None:
    """The branch from top to bottom with the channels between its convolutions; the shortcut on its right."""
    convs = [block.conv1, block.conv2, block.conv3]
    ax.set(xlim=(-1.6, 3.2), ylim=(-6.6, 1.2), aspect="equal")
    ax.plot([0, 0], [1, -6.4], color=INK, lw=1.5, zorder=1)
    ax.plot([0, 2, 2, 0], [0.4, 0.4, -4.9, -4.9], color=INK if block.downsample is None else color, lw=2.5, zorder=1)
    for index, conv in enumerate(convs):
        _draw_conv(ax, 0, -0.6 - 1.5 * index, conv, color)
        ax.text(-0.15, 0.2 - 1.5 * index, str(conv.in_channels), ha="right", va="center", color=GREY)
    ax.text(-0.15, -4.3, str(convs[-1].out_channels), ha="right", va="center", color=GREY)
    if block.downsample is not None:
        _draw_conv(ax, 2, -2.1, block.downsample[0], color)
    ax.add_patch(Circle((0, -4.9), 0.24, facecolor=CARD, edgecolor=INK, lw=1.5, zorder=2))
    ax.text(0, -4.92, "+", ha="center", va="center", fontsize=13, zorder=3)
    ax.add_patch(Rectangle((-0.4, -6.1), 0.8, 0.6, facecolor=CARD, edgecolor=INK, lw=1.5, zorder=2))
    ax.plot([-0.28, 0, 0.28], [-5.95, -5.95, -5.65], color=RED, lw=2, zorder=3)  # ReLU
    ax.text(0.15, 0.95, "x", ha="left", va="center", style="italic")
    ax.text(0.15, -6.4, "y", ha="left", va="center", style="italic")


def _draw_conv(ax: Axes, x: float, y: float, conv: nn.Conv2d, color: str) -> None:
    box = FancyBboxPatch((x - 0.55, y - 0.28), 1.1, 0.56, boxstyle="round,pad=0.04", facecolor=color, lw=0, zorder=2)
    ax.add_patch(box)
    side, stride = conv.kernel_size[0], conv.stride[0]
    ink = "white" if color == IDENTITY else INK
    label = f"{side}×{side}" + (f" ÷{stride}" if stride > 1 else "")
    ax.text(x, y - 0.02, label, ha="center", va="center", color=ink, weight="bold", zorder=3)


@figure("resnet-stages")
def stages() -> Figure:
    sheet, (ax,) = card(7.2, 2.6)
    network = resnet50()
    blank(ax)
    _bar(ax, 0, 4, GREY)
    _label(ax, 0, network.conv1.out_channels, 4)
    x = 1.5
    for index, stride in enumerate(network.strides):
        stage = getattr(network, f"layer{index + 1}")
        for position, block in enumerate(stage):
            _bar(ax, x + position, stride, IDENTITY if block.downsample is None else PROJECTED)
        _label(ax, x + (len(stage) - 1) / 2, network.channels[index], stride)
        x += len(stage) + 0.5
    ax.set(xlim=(-0.9, x), ylim=(-1.25, 1.05))
    return sheet


def _bar(ax: Axes, x: float, stride: int, color: str) -> None:
    height = 2 * (4 / stride) ** 0.5  # the root, so that the last stage stays visible
    box = FancyBboxPatch((x - 0.35, -height / 2), 0.7, height, boxstyle="round,pad=0,rounding_size=0.1", fc=color, lw=0)
    ax.add_patch(box)


def _label(ax: Axes, x: float, channels: int, stride: int) -> None:
    ax.text(x, -1.12, f"{channels} · ÷{stride}", ha="center", va="top")


@figure("backbone-stages")
def feature_maps() -> Figure:
    """The channel of each stage that varies most, for an image of the built-in shapes."""
    image, _ = draw_sample(3)
    tensor = normalize(to_tensor(image), IMAGENET_MEAN, IMAGENET_STD)
    trunk = load_detector("weights/detr_tiny_shapes.pth", device="cpu").model.backbone[0].body
    tapped = BackboneBase(trunk, False, 160, True).eval()
    with torch.no_grad():
        levels = tapped(nested_tensor_from_tensor_list([tensor]))
    sheet, axes = card(7.2, 1.75, 1, 5)
    blank(axes[0]).imshow(image)
    axes[0].set_title(f"3 · {image.height}×{image.width}")
    for ax, feature in zip(axes[1:], levels.values()):
        channels = feature.tensors[0]
        loudest = channels.flatten(1).std(1).argmax()
        blank(ax).imshow(channels[loudest], cmap=HEAT)
        ax.set_title(" · ".join([str(len(channels)), "×".join(map(str, channels.shape[1:]))]))
    return sheet


@figure("backbone-frozen")
def frozen() -> Figure:
    """The parameters of the five parts of ResNet-50, for each number of trainable layers."""
    sheet, (ax,) = card(6.4, 2.9)
    parts = ["conv1", "layer1", "layer2", "layer3", "layer4"]
    for n in range(6):
        with torch.device("meta"):
            network = Backbone("resnet50", True, False, False, trainable_layers=n).body
        for column, part in enumerate(parts):
            parameters = list(network[part].parameters())
            trains = all(parameter.requires_grad for parameter in parameters)
            ax.add_patch(Rectangle((column + 0.04, n - 0.42), 0.92, 0.84, facecolor=GREEN if trains else FAINT, lw=0))
            count = f"{sum(parameter.numel() for parameter in parameters) / 1e6:.2f}"
            ax.text(column + 0.5, n, count, ha="center", va="center", color="white" if trains else INK)
    for column, width in enumerate((64, 256, 512, 1024, 2048)):
        ax.text(column + 0.5, -0.75, str(width), ha="center", va="center")
    ax.add_patch(Rectangle((-0.03, 2.52), 5.06, 0.96, fill=False, edgecolor=INK, lw=1.5))  # the default
    ax.set(xlim=(-0.1, 5.1), ylim=(5.6, -1), yticks=range(6), xticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return sheet


@figure("backbone-dilation")
def dilation() -> Figure:
    sheet, axes = card(6.4, 2.7, 1, 2)
    centre, h, w = (4, 4), 8, 10
    for ax, step in zip(axes, (2, 1)):  # cells of the strided and of the dilated map, in cells of the latter
        blank(ax).set(xlim=(-0.1, w + 0.1), ylim=(h + 0.1, -0.1), aspect="equal")
        for row in range(0, h, step):
            for column in range(0, w, step):
                shared = row % 2 == 0 and column % 2 == 0
                read = shared and abs(row - centre[0]) <= 2 and abs(column - centre[1]) <= 2
                color = ORANGE if read else BLUE if shared else FAINT
                box = Rectangle((column + 0.06, row + 0.06), step - 0.12, step - 0.12, facecolor=color, lw=0)
                ax.add_patch(box)
                if (row, column) == centre:
                    ax.plot(column + step / 2, row + step / 2, "o", color="white", ms=7)
        ax.set_title("÷32" if step == 2 else "÷16")
    return sheet


@figure("positions-clocks")
def clocks() -> Figure:
    rows, pairs, D = 8, (0, 8, 16, 24, 32, 48), 256
    encoding = sine_positions(torch.zeros(1, rows, 1, dtype=torch.bool), D, 10000)[0, : D // 2, :, 0]  # [D/2, rows]
    sheet, (ax,) = card(4.6, 5.6)
    blank(ax).set(xlim=(-1.1, len(pairs) - 0.4), ylim=(rows - 0.4, -1.1), aspect="equal")
    for column, pair in enumerate(pairs):
        ax.text(column, -0.7, str(pair), ha="center", va="center", color=INK)
        for row in range(rows):
            sine, cosine = encoding[2 * pair : 2 * pair + 2, row].tolist()
            ax.add_patch(Circle((column, row), 0.42, facecolor="white", edgecolor=GREY, lw=1))
            tip = column + 0.36 * cosine, row - 0.36 * sine  # the y axis points down
            ax.plot([column, tip[0]], [row, tip[1]], color=BLUE, lw=2.5, solid_capstyle="round")
    for row in range(rows):
        ax.text(-0.8, row, str(row), ha="center", va="center", color=GREY)
    return sheet


@figure("positions-channels")
def channels() -> Figure:
    shown, temperatures = (0, 16, 48, 96, 128, 144, 176, 224), (10000, 20)
    sheet, axes = card(7.2, 1.6, 2, len(shown))
    for index, temperature in enumerate(temperatures):
        encoding = sine_positions(torch.zeros(1, 25, 34, dtype=torch.bool), 256, temperature)[0]
        for column, channel in enumerate(shown):
            ax = blank(axes[index * len(shown) + column])
            ax.imshow(encoding[channel], cmap=SIGNED, vmin=-1, vmax=1)
            if index == 0:
                ax.set_title(str(channel), fontsize=9)
        axes[index * len(shown)].text(-4, 12, str(temperature), ha="right", va="center", fontsize=9)
    return sheet
