"""Where a DETR looks: the attention weights of one forward pass (paper, figures 3 and 6).

Shapes: `B` batch, `H` heads, `Q` object queries, `h`, `w` height and width of the feature map, `S` = h·w.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.attention import MultiheadAttention


@dataclass
class AttentionMaps:
    """The attention weights of the last forward pass inside `record_attention`, averaged over the heads.

    Attributes:
        size: (h, w) of the feature map, (0, 0) before the first pass.
        decoder: for each decoder layer, the weights of each query over the feature map [B, Q, h, w].
        encoder: for each recorded encoder layer, the weights of each position over the feature map [B, h, w, h, w].
    """

    size: tuple[int, int] = (0, 0)
    decoder: list[Tensor] = field(default_factory=list)
    encoder: list[Tensor] = field(default_factory=list)


@contextmanager
def record_attention(model: nn.Module, encoder_layers: int = 1) -> Iterator[AttentionMaps]:
    """Record the attention of a detector in every forward pass inside the context.

    The recorded layers compute their weights explicitly instead of in the fused kernel, so outputs are equal up to
    rounding. Nothing else changes, and everything is restored afterwards.

    Args:
        model: the detector, with or without a mask head.
        encoder_layers: how many encoder layers to record, counted from the last; each one takes S·S numbers per image.
    """
    maps = AttentionMaps()
    transformer = getattr(model, "detr", model).transformer
    encoder = list(transformer.encoder.layers)
    recorded = [(layer.self_attn, maps.encoder) for layer in encoder[max(0, len(encoder) - encoder_layers) :]]
    recorded += [(layer.multihead_attn, maps.decoder) for layer in transformer.decoder.layers]

    def start_pass(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        maps.size = tuple(inputs[0].shape[-2:])
        maps.decoder.clear()
        maps.encoder.clear()

    with ExitStack() as stack:
        stack.enter_context(_temporary(transformer.register_forward_pre_hook(start_pass)))
        for attention, target in recorded:
            stack.enter_context(_temporary(attention.register_forward_pre_hook(_request_weights, with_kwargs=True)))
            stack.enter_context(_temporary(attention.register_forward_hook(_recorder(target, maps))))
        yield maps


def _request_weights(
    module: MultiheadAttention, inputs: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return inputs, options | {"need_weights": True}


def _recorder(target: list[Tensor], maps: AttentionMaps) -> Any:
    def record(module: MultiheadAttention, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        weights = output[1].detach().mean(1)  # [B, L, S]
        if target is maps.encoder:
            weights = weights.unflatten(1, maps.size)
        target.append(weights.unflatten(-1, maps.size))

    return record


@contextmanager
def _temporary(handle: torch.utils.hooks.RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
