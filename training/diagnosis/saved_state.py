"""The check before a save: weights and optimizer state that no run could continue from must not replace good ones."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from training.diagnosis.module_watch import count_non_finite, find_non_finite_tensor
from util.rng import undisturbed

PROBE_SIDE = 64  # pixels; large enough for every backbone


@torch.no_grad()
def find_unusable_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """What makes a training state useless, as a clause; empty if it can be saved.

    That is a weight, buffer or optimizer value that is not finite, or weights so large that a grey picture gives
    outputs that are not finite. The host waits for the device once for each of the two checks. No other process is
    involved; model, gradients and random generators stay unchanged.

    Args:
        model: the model itself, which takes a list of images [3, h, w].
        optimizer: over its parameters.
    """
    named = [*_weights(model), *_moments(model, optimizer)]
    if not _all_finite([tensor for _, tensor in named]):
        faults = [(name, tensor) for name, tensor in named if not tensor.isfinite().all()]
        name, tensor = faults[0]
        others = f", nor are {len(faults) - 1} of the {len(named) - 1} others" if len(faults) > 1 else ""
        return f"{name} is not finite ({count_non_finite(tensor)}){others}"
    parameter = next(model.parameters())
    with undisturbed(model):
        model.eval()
        outputs = model([torch.zeros(3, PROBE_SIDE, PROBE_SIDE, device=parameter.device)])
    found = find_non_finite_tensor(outputs)
    if found is not None:
        largest = max(tensor.abs().max().item() for _, tensor in _weights(model))
        return f"the weights, up to {largest:.3g}, give outputs that are not finite ({count_non_finite(found)})"
    return ""


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.numel():
            yield name, tensor


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
                yield f"the optimizer's {key} of {names.get(parameter, 'a parameter')}", value


def _all_finite(tensors: list[Tensor]) -> bool:
    """The largest magnitudes, which are NaN or infinite if a value is, computed together and read at once."""
    return bool(torch.nn.utils.get_total_norm(tensors, math.inf).isfinite())
