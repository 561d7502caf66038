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
    """The weights of the last forward pass inside `record_attention`, averaged over the heads.

    Attributes:
        size: (h, w) of the feature map, 0 before a pass.
        decoder: for each decoder layer, how much each query draws from each place of the image [B, Q, h, w].
        encoder: for each encoder layer recorded, how much each place draws from each [B, h, w, h, w].
    """

    size: tuple[int, int] = (0, 0)
    decoder: list[Tensor] = field(default_factory=list)
    encoder: list[Tensor] = field(default_factory=list)


@contextmanager
def record_attention(model: nn.Module, encoder_layers: int = 1) -> Iterator[AttentionMaps]:
    """Record the attention of a detector in every forward pass inside of the block.

    The layers recorded compute their weights in the open in place of the fused kernel, which gives the same outputs up
    to rounding; all else, and every pass outside of the block, is as it was.

    Args:
        model: the detector, with or without masks.
        encoder_layers: record so many of the last encoder layers; one holds S·S numbers an image.
    """
    maps = AttentionMaps()
    transformer = getattr(model, "detr", model).transformer
    encoder = list(transformer.encoder.layers)
    recorded = [(layer.self_attn, maps.encoder) for layer in encoder[max(0, len(encoder) - encoder_layers) :]]
    recorded += [(layer.multihead_attn, maps.decoder) for layer in transformer.decoder.layers]

    def begin(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        maps.size = tuple(inputs[0].shape[-2:])
        maps.decoder.clear()
        maps.encoder.clear()

    with ExitStack() as stack:
        stack.enter_context(_removed(transformer.register_forward_pre_hook(begin)))
        for attention, target in recorded:
            stack.enter_context(_removed(attention.register_forward_pre_hook(_ask_for_weights, with_kwargs=True)))
            stack.enter_context(_removed(attention.register_forward_hook(_keeper(target, maps))))
        yield maps


def _ask_for_weights(
    module: MultiheadAttention, inputs: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return inputs, options | {"need_weights": True}


def _keeper(target: list[Tensor], maps: AttentionMaps) -> Any:
    def keep(module: MultiheadAttention, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        weights = output[1].detach().mean(1)  # [B, L, S]
        if target is maps.encoder:
            weights = weights.unflatten(1, maps.size)
        target.append(weights.unflatten(-1, maps.size))

    return keep


@contextmanager
def _removed(handle: torch.utils.hooks.RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
