"""A pretended accelerator: tensors that say they are on a device of its own while their values are in ordinary memory.

Code under test sees what it would see with a GPU: `tensor.device` is not the CPU, tensors of both places cannot be
mixed, and values reach the host only by copies. Nothing is faster or asynchronous.

Importing this file registers the device for the whole process, so only processes of their own do that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

COPIES = {"_to_copy", "copy_", "copy"}  # may take tensors of both places, as indexing may


class _Module(_DummyBackendModule):
    """What `torch.pretended` is."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


_setup_privateuseone_for_python_backend("pretended", _Module())
DEVICE = torch.device("pretended:0")


class PretendedTensor(Tensor):
    """A tensor on the pretended device; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendedTensor:
        wrapper = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        wrapper.held = held
        return wrapper

    def tolist(self) -> Any:
        """torch's own refuses subclasses; for other devices it copies first, too."""
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"PretendedTensor({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(func, args, kwargs or {})


class PretendedDevice(TorchDispatchMode):
    """Context in which `torch.zeros(..., device=DEVICE)` and copies to DEVICE give `PretendedTensor`s."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(func, args, kwargs or {})


def to_pretended_device(module: nn.Module) -> nn.Module:
    """Move parameters and buffers of `module` to the pretended device, in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = PretendedTensor(parameter.detach().clone())
                part._parameters[name] = nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = PretendedTensor(buffer.detach().clone())
    return module


def _run(func: Any, args: tuple, kwargs: dict) -> Any:
    """Compute with the held values; what comes out is on the device where it would be."""
    name = func.overloadpacket.__name__
    if name == "_fused_sdp_choice":
        return 0  # attention by explicit sums: the fused kernels have other names on each device
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    pretended = [isinstance(tensor, PretendedTensor) for tensor in tensors]
    target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    if not any(pretended) and (target is None or target.type == "cpu"):
        return func(*args, **kwargs)
    _refuse_mixed(name, tensors, pretended)

    plain_args, plain_kwargs = tree_map(_held, (args, kwargs))
    plain_kwargs |= {"device": torch.device("cpu")} if target is not None else {}
    plain_kwargs |= {"pin_memory": False} if "pin_memory" in kwargs else {}
    result = func(*plain_args, **plain_kwargs)
    if name == "copy_":
        return args[0]
    if name == "_to_copy" and any(result is tensor for tensor in tree_leaves(plain_args)):
        result = result.clone()
    if target is not None:
        return result if target.type == "cpu" else tree_map(_wrapped, result)
    return return_and_correct_aliasing(func, args, kwargs, tree_map(_wrapped, result))


def _refuse_mixed(name: str, tensors: list[Tensor], pretended: list[bool]) -> None:
    """As on other devices, where a host's tensor without dimensions counts as a number."""
    strange = [not inside and tensor.dim() > 0 for tensor, inside in zip(tensors, pretended)]
    if any(pretended) and any(strange) and name not in COPIES and not name.startswith(("index", "_index")):
        raise RuntimeError(f"{name}: expected all tensors to be on one device, found {DEVICE} and cpu")


def _held(value: Any) -> Any:
    return value.held if isinstance(value, PretendedTensor) else value


def _wrapped(value: Any) -> Any:
    return PretendedTensor(value) if isinstance(value, Tensor) and not isinstance(value, PretendedTensor) else value
