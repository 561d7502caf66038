"""A detector prepared for inference alone: norms folded into the convolutions for good, activations and sums fused.

On CPUs, where PyTorch has oneDNN, each convolution with its activation and the sum of a residual block is one kernel,
and its weight is stored in the kernel's own layout. Elsewhere it is a convolution with a bias, and what follows is
computed in place. On CUDA, the kernels of a whole forward pass can be recorded and replayed, see
`models.fast.cuda_graphs`.

Shapes: B batch, C channels, h and w of a feature map.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import BackboneBase, IntermediateLayers
from models.fast.conv_norm import fold
from models.fast.cuda_graphs import GraphedForward
from models.fast.folded_norm import is_plain
from models.frozen_batch_norm import FrozenBatchNorm2d
from models.resnet import BasicBlock, Bottleneck

PACKED_SIZES = 8  # image sizes whose weight layouts are kept
STAGES = ("layer1", "layer2", "layer3", "layer4")


def optimize_for_inference(model: nn.Module, *, cuda_graphs: bool = False) -> nn.Module:
    """A copy of a detector or segmentation model that predicts the same, up to rounding, in less time.

    The copy is in evaluation mode, and cannot be trained, saved or moved to another device or type. A backbone that is
    not one of `models.resnet` with frozen or batch norms stays as it is.

    Args:
        model: a `DETR` or `DETRsegm`, on the device and in the type of its later use. It does not change.
        cuda_graphs: on CUDA, record the kernels of each size of batch when it comes for the second time, and replay
            them from then on. This is about three times as fast for single images, takes memory for each of up to
            eight sizes, and suits images of few sizes.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(model.modules()):
        if isinstance(module, BackboneBase) and can_fuse(module.body):
            module.body = FusedResNet(module.body)
    if cuda_graphs:
        model.forward = GraphedForward(model)
    return model


def can_fuse(body: nn.Module) -> bool:
    """Whether the body of a `BackboneBase` is one of `models.resnet`, with norms that are constant in evaluation."""
    if not isinstance(body, IntermediateLayers) or list(body)[:4] != ["conv1", "bn1", "relu", "maxpool"]:
        return False
    blocks = [block for name in STAGES if name in body for block in body[name]]
    if not all(type(block) in (BasicBlock, Bottleneck) for block in blocks):
        return False
    parts = [body["conv1"], body["bn1"], body["relu"]]
    parts += [part for block in blocks for part in block.modules() if part is not block]
    return all(_is_known(part) and is_plain(part) for part in parts)


def _is_known(part: nn.Module) -> bool:
    if type(part) is nn.BatchNorm2d:
        return part.affine and part.track_running_stats
    return type(part) in (nn.Conv2d, nn.ReLU, nn.Sequential, FrozenBatchNorm2d)


class FusedConv(nn.Module):
    """relu(norm(conv(x)) + shortcut); activation and sum are optional.

    Args:
        conv, norm: folded into one convolution. The norm is frozen or in evaluation mode, with running statistics.
        relu: apply the activation.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, *, relu: bool = True):
        super().__init__()
        scale, shift = _affine(norm, conv.weight.dtype)
        self.register_buffer("weight", fold(conv.weight, scale).contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", shift.to(conv.weight.dtype))
        self.relu = relu
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.packed: dict[torch.Size, Tensor] = {}  # input's shape → the weight in the layout of its kernel

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """[B, C, h, w] -> [B, C', h', w']; `shortcut` has the shape of the result and is overwritten."""
        if has_onednn(x):
            return self._forward_packed(x, shortcut)
        padding, stride, dilation, groups = self.geometry
        out = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
        if shortcut is not None:
            out = shortcut.add_(out)
        return out.relu_() if self.relu else out

    def _forward_packed(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        packed = self._packed_for(x.shape)
        activation = "relu" if self.relu else "none"
        if shortcut is None:
            return torch.ops.mkldnn._convolution_pointwise(x, packed, self.bias, *self.geometry, activation, [], "")
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            shortcut, x, packed, self.bias, *self.geometry, "add", 1.0, activation, [], None
        )

    def _packed_for(self, shape: torch.Size) -> Tensor:
        """The best layout depends on the size: with one made for another, a convolution can take ten times as long."""
        if shape not in self.packed:
            if len(self.packed) >= PACKED_SIZES:
                del self.packed[next(iter(self.packed))]  # the oldest
            self.packed[shape] = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.geometry, list(shape))
        return self.packed[shape]


class FusedBlock(nn.Module):
    """A block of a ResNet: convolutions in a row, and the shortcut that the last of them adds."""

    def __init__(self, block: BasicBlock | Bottleneck):
        super().__init__()
        pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if isinstance(block, Bottleneck):
            pairs.append((block.conv3, block.bn3))
        self.convs = nn.ModuleList(FusedConv(conv, norm) for conv, norm in pairs)
        self.downsample = None if block.downsample is None else FusedConv(*block.downsample, relu=False)

    def forward(self, x: Tensor, keeps_input: bool = False) -> Tensor:
        """[B, C, h, w] -> [B, C', h', w']. Without a projection x is overwritten, unless `keeps_input`."""
        out = x
        for conv in self.convs[:-1]:
            out = conv(out)
        if self.downsample is not None:
            shortcut = self.downsample(x)
        else:
            shortcut = x.clone(memory_format=torch.preserve_format) if keeps_input else x
        return self.convs[-1](out, shortcut)


class FusedResNet(nn.Module):
    """The convolutional part of a `BackboneBase`, fused.

    Args:
        body: of the `BackboneBase`.
    """

    def __init__(self, body: IntermediateLayers):
        super().__init__()
        self.return_layers = dict(body.return_layers)
        self.stem = FusedConv(body["conv1"], body["bn1"])
        self.maxpool = body["maxpool"]
        self.stages = nn.ModuleDict({n: nn.ModuleList(map(FusedBlock, body[n])) for n in STAGES if n in body})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W] -> {key: [B, C, h, w]}, finest level first."""
        x = self.maxpool(self.stem(x.contiguous(memory_format=torch.channels_last)))
        outputs: dict[str, Tensor] = {}
        for name, blocks in self.stages.items():
            for block in blocks:
                x = block(x, keeps_input=any(x is feature for feature in outputs.values()))
            if name in self.return_layers:
                outputs[self.return_layers[name]] = x
        return outputs


def has_onednn(x: Tensor) -> bool:
    """Whether PyTorch's fused convolutions of oneDNN can compute with x."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return False
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")


def _affine(norm: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(scale [C], shift [C]) of a norm that is constant."""
    if isinstance(norm, FrozenBatchNorm2d):
        return norm.affine(dtype)
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale
