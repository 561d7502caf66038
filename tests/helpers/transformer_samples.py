"""Small layers, random states and a recorder of dropout, for the tests of encoder and decoder."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fast import dropout as fast

D, H, INNER, S, Q, B = 16, 4, 24, 6, 5, 2
PRE_OR_POST = pytest.mark.parametrize("pre_norm", [False, True], ids=["post", "pre"])


def tensors(*shape: int, count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, *shape, generator=generator))


def randomised(module: nn.Module) -> nn.Module:
    """Add noise to every parameter, so that norms and biases affect the output."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


PLACES = {
    "encoder": ["weights", "sublayer", "inside", "sublayer"],
    "decoder": ["weights", "sublayer", "weights", "sublayer", "inside", "sublayer"],
}


def record_dropout(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """A list to which every dropout adds (place, effective rate), whether called as a module or as a function."""
    calls: list[tuple[str, float]] = []
    dropout, fused = fast.dropout, F.scaled_dot_product_attention

    def spy_dropout(input, p, training):
        place = "weights" if input.ndim == 4 else {D: "sublayer", INNER: "inside"}[input.shape[-1]]
        calls.append((place, p if training else 0.0))
        return dropout(input, p, training)

    def spy_fused(*args, dropout_p=0.0, **kwargs):
        calls.append(("weights", dropout_p))
        return fused(*args, dropout_p=dropout_p, **kwargs)

    monkeypatch.setattr(fast, "dropout", spy_dropout)
    monkeypatch.setattr(F, "scaled_dot_product_attention", spy_fused)
    return calls
