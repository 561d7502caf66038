"""The forward pass of a detector as a CUDA graph: one launch instead of a thousand.

At batch 1, a GPU computes DETR in a fraction of the time that Python takes to start its kernels. A graph records the
kernels once and starts all of them together.

Shapes: B batch, H and W of the padded images.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list

KEPT_SIZES = 8  # sizes of batches whose graphs are kept


@dataclass
class Recording:
    """The kernels of a forward pass, with the memory that they read and write."""

    graph: Any  # torch.cuda.CUDAGraph
    samples: NestedTensor
    outputs: Any

    def replay(self, samples: NestedTensor) -> Any:
        """The outputs for images and mask of the recorded shapes, in memory of their own."""
        self.samples.tensors.copy_(samples.tensors)
        self.samples.mask.copy_(samples.mask)
        self.graph.replay()
        return pytree.tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, self.outputs)


class GraphedForward:
    """Calls a model's forward; from the second time on that a size of batch comes in, replays it.

    The model runs as usual on other devices, with gradients, and while hooks wait for one of its parts.

    Args:
        model: a `DETR` or `DETRsegm` in evaluation mode.
    """

    def __init__(self, model: nn.Module):
        self.model_forward = model.forward
        self.parts = list(model.modules())[1:]
        self.recordings: dict[Hashable, Recording | None] = {}  # None: seen once; the oldest first

    def __call__(self, samples: NestedTensor | Tensor | list[Tensor]) -> Any:
        """As the model's forward."""
        if not isinstance(samples, NestedTensor):
            samples = nested_tensor_from_tensor_list(samples)
        if not self._can_replay(samples):
            return self.model_forward(samples)
        key = self._key(samples)
        if key not in self.recordings:  # this call also prepares the libraries for the recording
            if len(self.recordings) >= KEPT_SIZES:
                del self.recordings[next(iter(self.recordings))]
            self.recordings[key] = None
            return self.model_forward(samples)
        recording = self.recordings.pop(key) or self._record(samples)
        self.recordings[key] = recording  # now the newest
        return recording.replay(samples)

    def _can_replay(self, samples: NestedTensor) -> bool:
        if samples.tensors.device.type != "cuda" or samples.mask is None or torch.is_grad_enabled():
            return False
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.cuda.is_current_stream_capturing():
            return False
        return not any(part._forward_hooks or part._forward_pre_hooks for part in self.parts)

    def _key(self, samples: NestedTensor) -> Hashable:
        amp = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        return samples.tensors.shape, samples.tensors.dtype, samples.tensors.device, amp

    def _pool(self) -> Any:
        """The memory that all recordings share, which each can since its outputs are copied before the next one runs.

        It lives as long as one of them; None without one.
        """
        return next((recording.graph.pool() for recording in self.recordings.values() if recording), None)

    def _record(self, samples: NestedTensor) -> Recording:
        graph = torch.cuda.CUDAGraph()
        amp = {"dtype": torch.get_autocast_dtype("cuda"), "enabled": torch.is_autocast_enabled("cuda")}
        # Tensors of the inference mode could not be written outside of it. Weights that autocast has kept are not ours.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cuda", cache_enabled=False, **amp):
            own = NestedTensor(samples.tensors.clone(), samples.mask.clone())
            with torch.cuda.device(own.tensors.device), torch.cuda.graph(graph, pool=self._pool()):
                outputs = self.model_forward(own)
        return Recording(graph, own, outputs)
