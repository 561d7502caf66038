"""Hooks on every module of a model that find the first module whose inputs are finite and whose output is not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from util.nested_tensor import NestedTensor


class ModuleWatch:
    """A context in which every call of a module of `model` is watched.

    Attributes:
        order: names of the modules in the order in which their calls ended.
        culprit: "name (Class)" of the first module whose inputs were finite and whose output was not, the innermost
            one if modules are nested; empty if there is none.
        sentence: description of the culprit, without a full stop.
        parameter: the culprit's first parameter or buffer that is not finite, by its name in `model`; else empty.
    """

    def __init__(self, model: nn.Module):
        self.order: list[str] = []
        self.culprit = ""
        self.sentence = ""
        self.parameter = ""
        self._model = model
        self._inputs: list[tuple[bool, float]] = []  # (finite, largest) of each call in progress
        self._first_bad_input = ""
        self._handles: list[Any] = []

    def __enter__(self) -> ModuleWatch:
        for name, module in self._model.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._before(name), with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._after(name), with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, name: str) -> Any:
        def check_inputs(module: nn.Module, args: tuple, kwargs: dict) -> None:
            # Before the call, because an in-place module overwrites its input.
            finite = find_non_finite_tensor((args, kwargs)) is None
            self._inputs.append((finite, _largest((args, kwargs)) if finite else math.inf))
            if not finite and not self._first_bad_input:
                self._first_bad_input = name

        return check_inputs

    def _after(self, name: str) -> Any:
        def check_output(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            finite, largest = self._inputs.pop()
            self.order.append(name)
            bad = find_non_finite_tensor(output)
            if not self.culprit and finite and bad is not None:
                self._set_culprit(name, module, bad, largest)

        return check_output

    def _set_culprit(self, name: str, module: nn.Module, output: Tensor, largest: float) -> None:
        prefix = f"{name}." if name else ""
        self.culprit = f"{name or 'the model'} ({type(module).__name__})"
        self.sentence = (
            f"{self.culprit} is the first module with a non-finite output ({count_non_finite(output)}) and finite "
            f"inputs (up to {largest:.3g})"
        )
        for kind, states in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
            for key, value in states:
                if find_non_finite_tensor(value) is not None:
                    self.parameter = prefix + key
                    self.sentence += f"; its {kind} {key} is not finite either ({count_non_finite(value)})"
                    return
        if self._first_bad_input.startswith(prefix) and self._first_bad_input != name:
            self.sentence += f"; the values are computed by the module itself, before it calls {self._first_bad_input}"


def find_non_finite_tensor(value: Any) -> Tensor | None:
    """The first floating-point tensor with a NaN or infinity in nested lists, tuples, mappings and NestedTensors."""
    return next((tensor for tensor in _tensors(value) if not tensor.isfinite().all()), None)


def count_non_finite(tensor: Tensor) -> str:
    """A description such as "3 NaN, 1 infinite of 640 values"."""
    counts = {"NaN": int(tensor.isnan().sum()), "infinite": int(tensor.isinf().sum())}
    parts = [f"{count} {name}" for name, count in counts.items() if count]
    return f"{', '.join(parts)} of {tensor.numel()} value{'' if tensor.numel() == 1 else 's'}"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield value
    elif isinstance(value, NestedTensor):
        yield from _tensors(value.tensors)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _largest(value: Any) -> float:
    return max((tensor.abs().max().item() for tensor in _tensors(value) if tensor.numel()), default=0.0)
