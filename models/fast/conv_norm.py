"""A convolution with the frozen batch norm and the activation behind it, as one step.

`norm(conv(x))` multiplies each channel by a constant and adds another. A convolution whose weights are multiplied by
the first constant and whose bias is the second computes the same without a pass over the features.

Shapes: B batch, C channels of the input, K of the output, h and w of a feature map.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Pair = tuple[int, int]  # (vertical, horizontal)
Geometry = tuple[Pair, Pair, Pair]  # stride, padding, dilation


def conv_norm(
    x: Tensor,
    weight: Tensor,
    geometry: Geometry,
    scale: Tensor,
    shift: Tensor,
    shortcut: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """`relu(scale * conv(x) + shift + shortcut)`. TorchScript can compile it.

    Args:
        x: [B, C, h, w], preferably channels last.
        weight: [K, C, ·, ·] of a convolution without bias and groups.
        geometry: of the convolution.
        scale, shift: [K], see `FrozenBatchNorm2d.affine`.
        shortcut: [B, K, h', w'], or None for no sum.
        relu: apply the activation. Without a shortcut, the result may then have one consumer only: the gradient that
            this one sends is overwritten.

    Returns:
        [B, K, h', w'].
    """
    shift = shift.to(weight.dtype)
    if not torch.jit.is_scripting():
        if not torch.compiler.is_compiling() and not torch.jit.is_tracing():
            return _ConvNorm.apply(x, weight, scale, shift, shortcut, geometry, relu)
    out = convolve(x, fold(weight, scale), shift, geometry)  # compilers fuse what follows
    if shortcut is not None:
        out = out + shortcut
    return F.relu(out) if relu else out


def fold(weight: Tensor, scale: Tensor) -> Tensor:
    """The weight [K, C, ·, ·] of a convolution, times a factor for each output channel [K]."""
    return (weight * scale.view(-1, 1, 1, 1)).to(weight.dtype)


def convolve(x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry) -> Tensor:
    """[B, C, h, w] -> [B, K, h', w'].

    On a CPU, a 1x1 convolution is a matrix product over channels-last features. PyTorch has a slower form for it when
    it runs on one thread.
    """
    if is_product(x, weight, geometry):
        out = torch.addmm(bias, _rows(x), weight.flatten(1).t())
        return out.view(x.shape[0], x.shape[2], x.shape[3], -1).permute(0, 3, 1, 2)
    stride, padding, dilation = geometry
    return F.conv2d(x, weight, bias, stride, padding, dilation)


def is_product(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether the convolution is computed as a product of matrices."""
    stride, padding, _ = geometry
    pointwise = weight.shape[2] == 1 and weight.shape[3] == 1 and padding == (0, 0)
    return pointwise and stride == (1, 1) and _as_products(x, weight)


class _ConvNorm(torch.autograd.Function):
    """Keeps the plain weight, which exists anyway, for the backward pass; not the scaled one."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        shift: Tensor,
        shortcut: Tensor | None,
        geometry: Geometry,
        relu: bool,
    ) -> Tensor:
        out = convolve(x, fold(weight, scale), shift, geometry)
        if shortcut is not None:
            out.add_(shortcut)
        if relu:
            out.relu_()
        ctx.geometry, ctx.relu, ctx.has_shortcut = geometry, relu, shortcut is not None
        ctx.save_for_backward(x, weight, scale, *([out] if relu else []))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, *out = ctx.saved_tensors
        if ctx.relu and ctx.has_shortcut:  # the output of a block may have several consumers
            grad = torch.ops.aten.threshold_backward(grad, out[0], 0)
        elif ctx.relu:
            grad = torch.ops.aten.threshold_backward.grad_input(grad, out[0], 0, grad_input=grad)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _backward(grad, x, fold(weight, scale), ctx.geometry, (True, False, False))[0]
        if ctx.needs_input_grad[1]:
            grad_weight = fold(weight_gradient(grad, x, weight, ctx.geometry), scale).to(weight.dtype)
        return grad_x, grad_weight, None, None, grad if ctx.has_shortcut else None, None, None


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The gradient [K, C, ·, ·] of a convolution's weight, from those of its output [B, K, h', w'] and its input x.

    On a CPU it is computed by matrix products over channels-last features: one for each cell of the kernel. PyTorch's
    own form takes up to three times as long there.
    """
    if not _as_products(x, grad):
        return _backward(grad, x, weight, geometry, (False, True, False))[1]
    stride, padding, _ = geometry
    if weight.shape[2:] == (1, 1) and padding == (0, 0):
        x = x[:, :, :: stride[0], :: stride[1]]
        return (_rows(grad).t() @ _rows(x)).view_as(weight)
    if stride == (1, 1) and grad.shape[2:] == x.shape[2:]:
        return _weight_gradient_by_cells(grad, x, weight, geometry)
    return _backward(grad.contiguous(), x.contiguous(), weight, geometry, (False, True, False))[1]


def _weight_gradient_by_cells(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """For an output of the input's size. The output and the padded input are laid on one grid of rows.

    A cell of the kernel then moves the whole grid by a constant number of rows.
    """
    _, (pad_h, pad_w), (step_h, step_w) = geometry
    inputs = F.pad(x.permute(0, 2, 3, 1), (0, 0, pad_w, pad_w, pad_h, pad_h))  # [B, h + 2 pad, w + 2 pad, C]
    outputs = F.pad(grad.permute(0, 2, 3, 1), (0, 0, 0, 2 * pad_w, 0, 2 * pad_h))  # [B, h + 2 pad, w + 2 pad, K]
    width = inputs.shape[2]
    inputs = inputs.flatten(0, 2)  # [N, C]
    used = len(inputs) - 2 * (pad_h * width + pad_w)  # the rows behind are padding
    outputs = outputs.flatten(0, 2)[:used].t()  # [K, used]
    cells = outputs.new_empty(*weight.shape[2:], *weight.shape[:2])
    for row in range(weight.shape[2]):
        for column in range(weight.shape[3]):
            moved = row * step_h * width + column * step_w
            torch.mm(outputs, inputs[moved : moved + used], out=cells[row, column])
    return cells.permute(2, 3, 0, 1).contiguous()


def _as_products(x: Tensor, other: Tensor) -> bool:
    """Whether products of matrices serve: on a CPU, in no half type, and not in a file for another runtime."""
    if not torch.jit.is_scripting():
        if torch.is_autocast_enabled("cpu") or torch.compiler.is_exporting():
            return False
    full = x.dtype == other.dtype and (x.dtype == torch.float32 or x.dtype == torch.float64)
    return full and x.device.type == "cpu"


def _rows(x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B·h·w, C]."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, ...]:
    stride, padding, dilation = geometry
    return torch.ops.aten.convolution_backward(
        grad, x.to(grad.dtype), weight.to(grad.dtype), None, stride, padding, dilation, False, [0, 0], 1, wanted
    )
