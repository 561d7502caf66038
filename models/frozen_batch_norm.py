"""Batch norm that never changes (paper, section 4: "ImageNet-pretrained backbone with frozen batch norm").

Shapes: B batch, C channels, h and w of a feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.fast.conv_norm import Geometry, conv_norm


def in_recording(tensor: Tensor) -> bool:
    """Whether operations on `tensor` become part of a CUDA graph now."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters are constant, in training as well.

    All four are buffers, so the optimizer, weight decay and training batches leave them unchanged. The usual detection
    batches of 2 to 4 images are too small for batch statistics.

    On a GPU, the factor and the summand of each channel are computed once and kept until a buffer changes. PyTorch
    counts every change but those through `.data`.
    """

    def __init__(self, n: int):
        super().__init__()
        self.eps = 1e-5
        self.register_buffer("weight", torch.ones(n))
        self.register_buffer("bias", torch.zeros(n))
        self.register_buffer("running_mean", torch.zeros(n))
        self.register_buffer("running_var", torch.ones(n))
        self._kept = None

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)  # saved by nn.BatchNorm2d, unused here
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_kept": None}

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape and type; half types are computed in float32."""
        scale, shift = self.affine(x.dtype)
        # addcmul reads x once, and autograd saves no copy of it
        return torch.addcmul(shift.view(1, -1, 1, 1), x.to(scale.dtype), scale.view(1, -1, 1, 1)).to(x.dtype)

    def after_conv(
        self, x: Tensor, weight: Tensor, geometry: Geometry, shortcut: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        """The norm of a convolution's output, in one step with it: `relu(forward(conv(x)) + shortcut)`.

        See `models.fast.conv_norm`.
        """
        scale, shift = self.affine(weight.dtype)
        return conv_norm(x, weight, geometry, scale, shift, shortcut, relu)

    def affine(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(scale [C], shift [C]): `forward` computes scale * x + shift, for x of `dtype`, in float32 at least."""
        if not torch.jit.is_scripting():
            if not torch.compiler.is_compiling() and self._keeps_affine():
                return self._kept_affine(dtype)
        return self._new_affine(dtype)

    @torch.jit.unused
    def _keeps_affine(self) -> bool:
        """A GPU computes the few numbers at once, but each operation costs the host some microseconds."""
        buffers = self._buffers.values()
        known = all(type(buffer) is Tensor and not buffer.is_inference() for buffer in buffers)
        return known and self.weight.device.type not in ("cpu", "meta") and not torch.jit.is_tracing()

    @torch.jit.unused
    def _kept_affine(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        buffers = tuple(self._buffers.values())
        versions = tuple(buffer._version for buffer in buffers)
        if self._kept is not None:
            kept_buffers, *kept_for, affine = self._kept
            if kept_for == [versions, dtype] and all(a is b for a, b in zip(kept_buffers, buffers)):
                return affine
        if in_recording(self.weight):  # the graph owns what is computed here, and its replays overwrite it
            return self._new_affine(dtype)
        with torch.inference_mode(False), torch.no_grad():  # usable in training too
            affine = self._new_affine(dtype)
        self._kept = (buffers, versions, dtype, affine)
        return affine

    def _new_affine(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(torch.promote_types(dtype, self.weight.dtype), torch.float32)
        scale = self.weight.to(wide) * (self.running_var.to(wide) + self.eps).rsqrt()
        return scale, self.bias.to(wide) - self.running_mean.to(wide) * scale
