"""Counts how often the host waits for the device.

An accelerator works through its queue while the host goes on. The host waits where it needs a value from the device, or
the size of a result that depends on values there, and where a copy is not asked for with `non_blocking`.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

REPOSITORY = Path(__file__).resolve().parents[3]
READS = {  # operations that hand values or sizes to the host
    "_local_scalar_dense",  # item, tolist of one number, bool, int, float, format
    "equal",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "unique",
    "_unique",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "histc",
    "repeat_interleave",
    "linalg_eig",
    "linalg_eigvals",
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
COPIES = {"_to_copy", "copy_", "copy", "_copy_from", "_copy_from_and_resize"}


class Waits(TorchDispatchMode):
    """Context in which every wait is noted as "operation at file:line".

    Attributes:
        found: the waits so far, in their order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if _waits(name, args, kwargs, result):
            self.found.append(f"{name} at {_place()}")
        return result


def _waits(name: str, args: tuple, kwargs: dict, result: Any) -> bool:
    tensors = list(_tensors((args, kwargs)))
    if name in COPIES:
        # A copy from pageable host memory waits too, unless it may be asynchronous.
        places = {tensor.device.type for tensor in [*tensors, *_tensors(result)]}
        asynchronous = kwargs.get("non_blocking", name == "copy_" and len(args) > 2 and args[2])
        return len(places) > 1 and not (asynchronous and _to_device(name, args, result))
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return False
    if name in INDEXING:  # with a mask, the number of selected values is unknown to the host
        return any(index.dtype in (torch.bool, torch.uint8) for index in _tensors(args[1]))
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    return name in READS


def _to_device(name: str, args: tuple, result: Any) -> bool:
    """Whether a copy goes to the device: in the other direction the host needs to wait before it reads the values."""
    target = args[0] if name.endswith("_") else result
    return target.device.type != "cpu"


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _place() -> str:
    """The innermost line of this repository's own code outside the helpers; that of an engine thread has none."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        inside = path.is_relative_to(REPOSITORY) and ".venv" not in path.parts
        if inside and not path.is_relative_to(Path(__file__).parent):
            return f"{path.relative_to(REPOSITORY)}:{frame.lineno}"
    return "backward or a library"
