"""Residual networks, the backbones of DETR: four stages, without pooling and classifier.

He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016). As in torchvision, a bottleneck has its stride on
the 3x3 convolution (known as version 1.5); modules and so the keys of the state_dict have torchvision's names.

Shapes: B batch, C channels, H and W height and width of the input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from models.fast.folded_norm import can_fold

NormLayer = Callable[[int], nn.Module]  # channels -> a normalisation over [B, C, H, W]


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


def projection(in_channels: int, out_channels: int, stride: int, norm_layer: NormLayer) -> nn.Sequential | None:
    """The 1x1 convolution of a shortcut (He et al., eq. 2), or None if the shortcut is the identity (eq. 1)."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), norm_layer(out_channels))


class Block(nn.Module):
    """The common part of both blocks: frozen norms are folded into the convolutions, where nothing forbids it.

    Attributes:
        fast: False for the plain form, which the folded one equals.
    """

    __constants__ = ["folds"]
    __jit_unused_properties__ = ["folds"]

    def __init__(self) -> None:
        super().__init__()
        self.fast = True

    @property
    def folds(self) -> bool:
        """Whether the folded form runs."""
        return self.fast and can_fold(*self.children())

    def _project_folded(self, x: Tensor) -> Tensor:
        """The shortcut of the folded form."""
        if self.downsample is None:
            return x
        return self.downsample[1].after_conv(
            x,
            self.downsample[0].weight,
            (self.downsample[0].stride, self.downsample[0].padding, self.downsample[0].dilation),
        )


class BasicBlock(Block):
    """Two 3x3 convolutions with a shortcut: [B, C, H, W] -> [B, width, H/stride, W/stride]."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, norm_layer: NormLayer):
        super().__init__()
        self.conv1 = conv3x3(in_channels, width, stride, dilation)
        self.bn1 = norm_layer(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(width, width, dilation=dilation)
        self.bn2 = norm_layer(width)
        self.downsample = projection(in_channels, width, stride, norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        if self.folds:
            return self._forward_folded(x)
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + shortcut)

    def _forward_folded(self, x: Tensor) -> Tensor:
        out = self.bn1.after_conv(
            x, self.conv1.weight, (self.conv1.stride, self.conv1.padding, self.conv1.dilation), relu=True
        )
        shortcut = self._project_folded(x)
        return self.bn2.after_conv(
            out, self.conv2.weight, (self.conv2.stride, self.conv2.padding, self.conv2.dilation), shortcut, relu=True
        )


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions with a shortcut: [B, C, H, W] -> [B, 4*width, H/stride, W/stride].

    Also known as a "conv block" if the shortcut has a projection and as an "identity block" if it has none.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, norm_layer: NormLayer):
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = norm_layer(width)
        self.conv2 = conv3x3(width, width, stride, dilation)
        self.bn2 = norm_layer(width)
        self.conv3 = conv1x1(width, out_channels)
        self.bn3 = norm_layer(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = projection(in_channels, out_channels, stride, norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        if self.folds:
            return self._forward_folded(x)
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + shortcut)

    def _forward_folded(self, x: Tensor) -> Tensor:
        out = self.bn1.after_conv(
            x, self.conv1.weight, (self.conv1.stride, self.conv1.padding, self.conv1.dilation), relu=True
        )
        out = self.bn2.after_conv(
            out, self.conv2.weight, (self.conv2.stride, self.conv2.padding, self.conv2.dilation), relu=True
        )
        shortcut = self._project_folded(x)
        return self.bn3.after_conv(
            out, self.conv3.weight, (self.conv3.stride, self.conv3.padding, self.conv3.dilation), shortcut, relu=True
        )


@dataclass(frozen=True)
class Spec:
    """The sizes of a residual network. The stem is as wide as the first stage."""

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, int, int, int]  # blocks in each stage
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    stem_kernel: int = 7


SPECS: dict[str, Spec] = {
    "resnet18": Spec(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Spec(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Spec(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Spec(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Spec(Bottleneck, (3, 8, 36, 3)),
    "tiny": Spec(BasicBlock, (1, 1, 1, 1), widths=(32, 64, 128, 160)),
}


class ResNet(nn.Module):
    """Stem and four stages, at strides 4, 8, 16 and 32 (16 with `dilation`, DETR's DC5).

    Args:
        norm_layer: builds the normalisation for a number of channels.
        dilation: the last stage dilates its 3x3 kernels instead of reducing the resolution. As in torchvision, its
            first block keeps dilation 1; unlike in torchvision, basic blocks can be dilated too.

    Attributes:
        channels: the numbers of channels of the four stages.
        strides: image pixels per feature cell of the four stages.
    """

    def __init__(self, spec: Spec, *, norm_layer: NormLayer, dilation: bool = False):
        super().__init__()
        stem_width = spec.widths[0]
        self.channels: tuple[int, ...] = tuple(width * spec.block.expansion for width in spec.widths)
        self.strides: tuple[int, ...] = (4, 8, 16, 16 if dilation else 32)

        self.conv1 = nn.Conv2d(3, stem_width, spec.stem_kernel, stride=2, padding=spec.stem_kernel // 2, bias=False)
        self.bn1 = norm_layer(stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

        in_channels = (stem_width, *self.channels[:3])
        self.layer1 = _stage(spec, 0, in_channels[0], norm_layer, stride=1)
        self.layer2 = _stage(spec, 1, in_channels[1], norm_layer, stride=2)
        self.layer3 = _stage(spec, 2, in_channels[2], norm_layer, stride=2)
        if dilation:
            self.layer4 = _stage(spec, 3, in_channels[3], norm_layer, stride=1, dilation=2)
        else:
            self.layer4 = _stage(spec, 3, in_channels[3], norm_layer, stride=2)
        self._initialise()

    def _initialise(self) -> None:
        """He initialisation by fan-out, as in torchvision. Norms are initialised by their constructors."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> the last stage's features [B, channels[3], H/strides[3], W/strides[3]], rounded up."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # [B, stem, H/4, W/4]
        x = self.layer2(self.layer1(x))  # [B, channels[1], H/8, W/8]
        return self.layer4(self.layer3(x))


def _stage(
    spec: Spec, index: int, in_channels: int, norm_layer: NormLayer, *, stride: int, dilation: int = 1
) -> nn.Sequential:
    """One stage. `stride` applies to its first block, `dilation` to all others."""
    width = spec.widths[index]
    blocks = [spec.block(in_channels, width, stride, 1, norm_layer)]
    for _ in range(spec.depths[index] - 1):
        blocks.append(spec.block(width * spec.block.expansion, width, 1, dilation, norm_layer))
    return nn.Sequential(*blocks)


def build_resnet(name: str, *, norm_layer: NormLayer, dilation: bool = False) -> ResNet:
    """A randomly initialised network, by its name in `SPECS`.

    Raises:
        ValueError: an unknown name.
    """
    if name not in SPECS:
        raise ValueError(f"unknown backbone {name!r}: choose one of {', '.join(SPECS)}")
    return ResNet(SPECS[name], norm_layer=norm_layer, dilation=dilation)
