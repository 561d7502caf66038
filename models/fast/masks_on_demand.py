"""Masks that are computed when they are read, and only those that are needed.

The mask head takes most of the time and memory of a model with masks, but the loss compares only the masks of matched
queries, and a prediction keeps only those of good detections. The group norms see one query at a time, so the masks of
some queries, and the gradients of a loss on them, do not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

MASKS = "pred_masks"
Queries = Sequence[Tensor]  # of each image: indices int64 [n_i], on the CPU or the model's device


class MasksOnDemand(dict[str, Any]):
    """The outputs of a model with masks. `pred_masks` is computed when it is first read, for all queries.

    To other code this is a dict that holds all outputs: whatever looks at all entries computes the masks as well.
    `masks_of` computes the masks of some queries without storing them.

    The masks follow the weights at the time of reading, under the autocast and gradient mode of the forward pass. Read
    them before the weights change. Under DistributedDataParallel they may be read after its forward pass: the weights
    are the same tensors, and their gradients are reduced as usual.

    Args:
        outputs: all but the masks.
        compute: the queries of each image, or None for all → masks [Σ n_i, h, w], or [B, Q, h, w] of all.
        device_type: where `compute` runs, "cpu" or "cuda", for its autocast.
    """

    def __init__(self, outputs: dict[str, Any], compute: Callable[[Queries | None], Tensor], device_type: str):
        super().__init__(outputs)
        self._compute = compute
        self._grad = torch.is_grad_enabled()
        self._autocast = {
            "device_type": device_type,
            "dtype": torch.get_autocast_dtype(device_type),
            "enabled": torch.is_autocast_enabled(device_type),
        }

    def masks_of(self, queries: Queries) -> Tensor:
        """The masks of some queries [Σ n_i, h, w], image after image.

        Args:
            queries: for each image the indices of its queries.
        """
        if super().__contains__(MASKS):
            return _pick(self[MASKS], queries)
        return self._run(queries)

    def _run(self, queries: Queries | None) -> Tensor:
        with torch.set_grad_enabled(self._grad), torch.autocast(**self._autocast):
            return self._compute(queries)

    def __missing__(self, name: str) -> Tensor:
        if name != MASKS:
            raise KeyError(name)
        self[MASKS] = self._run(None)
        return self[MASKS]

    def __contains__(self, name: object) -> bool:
        return name == MASKS or super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (dict(self),)  # copied and sent to other processes as plain outputs


def _whole(method: str) -> Callable[..., Any]:
    """A method of dict that looks at all entries, so the masks have to be there."""

    def with_masks(self: MasksOnDemand, *args: Any) -> Any:
        self[MASKS]
        return getattr(dict, method)(self, *args)

    return with_masks


for _method in ("__iter__", "__reversed__", "__len__", "__eq__", "__ne__", "__or__", "__ror__", "__repr__"):
    setattr(MasksOnDemand, _method, _whole(_method))
for _method in ("keys", "values", "items", "copy", "pop"):
    setattr(MasksOnDemand, _method, _whole(_method))


def masks_of(outputs: dict[str, Any], queries: Queries) -> Tensor:
    """The masks of some queries [Σ n_i, h, w], image after image; if possible, only these are computed.

    Args:
        outputs: of a model with masks.
        queries: for each image the indices of its queries.
    """
    if isinstance(outputs, MasksOnDemand):
        return outputs.masks_of(queries)
    return _pick(outputs[MASKS], queries)


def _pick(masks: Tensor, queries: Queries) -> Tensor:
    image = torch.cat([torch.full_like(chosen, index) for index, chosen in enumerate(queries)])
    pair = torch.stack([image, torch.cat(list(queries))]).to(masks.device, non_blocking=True)
    return masks[pair[0], pair[1]]
