"""Encoder and decoder with golden weights, post-norm and pre-norm."""

from functools import cache

import torch
from torch import Tensor

from models.transformer import Transformer
from tests.helpers.golden_rules import ARRAYS, FORWARD, assert_close, covers, load_golden_weights, tensor


@cache
def run_transformer(pre_norm: bool) -> dict[str, Tensor]:
    """hs [layers, B, Q, D] and memory [B, D, h, w]."""
    transformer = load_golden_weights(Transformer(32, 4, 2, 3, 64, 0.0, "relu", pre_norm, True)).eval()
    mask = torch.zeros(2, 5, 7, dtype=torch.bool)
    mask[1, :, 5:] = True
    mask[1, 4:] = True
    with torch.no_grad():
        hs, memory = transformer(
            tensor("tr:src", 2, 32, 5, 7), mask, tensor("tr:q", 12, 32), tensor("tr:pos", 2, 32, 5, 7)
        )
    return {"hs": hs, "memory": memory}


@covers("transformer/*")
def test_transformer(key):
    _, norm, part = key.split("/")
    assert_close(run_transformer(norm == "pre")[part], ARRAYS[key], FORWARD, key)
