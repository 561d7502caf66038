"""Checks of the saved state of an optimizer and a schedule before it is loaded.

torch accepts almost anything as a state: tensors of another shape or text as a learning rate load without an error and
fail in the next step; the state of a schedule replaces any attribute, even methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from util.files import is_count, is_number

KERNELS = ("foreach", "fused", "capturable", "differentiable")  # chosen for the machine; they do not change the result
ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


def check_optimizer_state(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Refuse a state that Adam or AdamW cannot continue from.

    Args:
        state: to be loaded, as `optimizer.state_dict()` returns it.
        optimizer: over the parameters that the state is for.

    Raises:
        ValueError: names the first entry that does not fit.
    """
    groups, moments = state.get("param_groups"), state.get("state")
    if not isinstance(groups, list) or not isinstance(moments, Mapping):
        raise ValueError("the optimizer's state lacks param_groups or state")
    own_groups = optimizer.param_groups
    own_sizes = [len(group["params"]) for group in own_groups]
    sizes = [len(g["params"]) if isinstance(g, Mapping) and isinstance(g.get("params"), list) else None for g in groups]
    if sizes != own_sizes:
        raise ValueError(f"the optimizer's groups hold {sizes} parameters, the model's {own_sizes}")
    for number, (group, own) in enumerate(zip(groups, own_groups)):
        for name in own.keys() - {"params", *KERNELS}:
            required = name in ("lr", "betas", "eps", "weight_decay")
            if (name in group or required) and not _is_like(group.get(name), own[name]):
                raise ValueError(f"{name} of the optimizer's group {number} is {_shown(group.get(name))}")
        if not all(beta < 1 for beta in group["betas"]):
            raise ValueError(f"betas of the optimizer's group {number} are {_shown(group['betas'])}")

    numbers = [number for group in groups for number in group["params"]]
    parameters = [parameter for group in own_groups for parameter in group["params"]]
    if not all(type(number) is int for number in numbers) or not moments.keys() <= set(numbers):
        raise ValueError("the optimizer's state has entries for parameters that are not in its groups")
    for number, parameter in zip(numbers, parameters):
        if number in moments:
            _check_moments(moments[number], parameter, number)


def _check_moments(entry: Any, parameter: Tensor, number: int) -> None:
    for name in ADAM_STATE:
        value = entry.get(name) if isinstance(entry, Mapping) else None
        if name == "step":
            fits = is_count(value) or (_is_plain(value) and value.numel() == 1 and value.dim() == 0)
        else:
            fits = _is_plain(value) and value.shape == parameter.shape
        if not fits or not torch.as_tensor(value).isfinite().all():
            raise ValueError(f"{name} of the optimizer's parameter {number} is {_shown(value)}")
    if any(isinstance(entry[name], Tensor) and name not in ADAM_STATE for name in entry):
        raise ValueError(f"the state of the optimizer's parameter {number} belongs to another kind of optimizer")


def check_schedule_state(state: Mapping[str, Any], lr_scheduler: LRScheduler) -> None:
    """Refuse a state of another kind of schedule.

    Raises:
        ValueError: names the first entry that does not fit.
    """
    own = lr_scheduler.state_dict()
    for name, value in state.items():
        if not isinstance(name, str) or name == "optimizer" or callable(getattr(lr_scheduler, name, None)):
            raise ValueError(f"the schedule's state has {_shown(name)}, which is not an entry of a schedule")
        if name in own and not _is_like(value, own[name]):
            raise ValueError(f"{name} of the schedule is {_shown(value)}")
    if "last_epoch" not in state:
        raise ValueError("the schedule's state has no last_epoch")
    if state.get("step_size", 1) < 1:
        raise ValueError(f"step_size of the schedule is {state['step_size']}")


def _is_like(value: Any, own: Any) -> bool:
    """True for a value that can replace `own`: equal flags, finite non-negative numbers."""
    if own is None or isinstance(own, bool | str):
        return type(value) is type(own) and value == own
    if isinstance(own, list | tuple):
        same = isinstance(value, list | tuple) and len(value) == len(own)
        return same and all(_is_like(*pair) for pair in zip(value, own))
    if isinstance(own, int):
        return is_count(value)
    if isinstance(own, float):
        return is_number(value) and 0 <= value < math.inf
    return True


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta and not value.is_complex()


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {value.dtype}, or not finite"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
