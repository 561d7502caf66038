"""The layers of DETR's transformer (paper, section A.3, figure 10), with post-norm or pre-norm.

Shapes: `B` batch, `S` = h·w image features, `Q` object queries, `D` width. Sequences come first: [S, B, D].
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import MultiheadAttention
from models.fast.dropout import Dropout


class _Layer(nn.Module):
    """The common part of encoder and decoder layers: the feed-forward network and the addition of positions."""

    def __init__(self, d_model: int, dim_feedforward: int, dropout: float, activation: str, normalize_before: bool):
        super().__init__()
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.dropout = Dropout(dropout)
        self.linear2 = nn.Linear(dim_feedforward // 2 if activation == "glu" else dim_feedforward, d_model)
        self.activation = _activation(activation)
        self.normalize_before = normalize_before

    def with_pos_embed(self, tensor: Tensor, pos: Tensor | None) -> Tensor:
        """The tensor plus its positions, if there are any."""
        return tensor if pos is None else tensor + pos

    def _feed_forward(self, x: Tensor) -> Tensor:
        """[·, B, D] → [·, B, D]."""
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class TransformerEncoderLayer(_Layer):
    """Self-attention over the image and a feed-forward network, each with a residual connection and a norm.

    Dropout acts in four places: on the attention weights, inside the feed-forward network and after both sublayers.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        normalize_before: bool = False,
    ):
        super().__init__(d_model, dim_feedforward, dropout, activation, normalize_before)
        self.self_attn = MultiheadAttention(d_model, nhead, dropout)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        pos: Tensor | None = None,
    ) -> Tensor:
        """Apply the layer.

        Args:
            src: [S, B, D].
            src_mask: [S, S], see `MultiheadAttention`.
            src_key_padding_mask: bool [B, S], True = padding.
            pos: [S, B, D], added to queries and keys but not to values.

        DETR passes `src`, `src_key_padding_mask` and `pos`; `src_mask` is part of the published signature.

        Returns:
            [S, B, D]
        """
        if self.normalize_before:
            return self.forward_pre(src, src_mask, src_key_padding_mask, pos)
        return self.forward_post(src, src_mask, src_key_padding_mask, pos)

    def forward_post(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        pos: Tensor | None = None,
    ) -> Tensor:
        """Post-norm: a norm after each residual sum (the published default)."""
        src = self.norm1(src + self._attend(src, src_mask, src_key_padding_mask, pos))
        return self.norm2(src + self.dropout2(self._feed_forward(src)))

    def forward_pre(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        pos: Tensor | None = None,
    ) -> Tensor:
        """Pre-norm: a norm before each sublayer."""
        src = src + self._attend(self.norm1(src), src_mask, src_key_padding_mask, pos)
        return src + self.dropout2(self._feed_forward(self.norm2(src)))

    def _attend(self, x: Tensor, mask: Tensor | None, padding: Tensor | None, pos: Tensor | None) -> Tensor:
        queries = keys = self.with_pos_embed(x, pos)
        return self.dropout1(self.self_attn(queries, keys, x, mask, padding)[0])


class TransformerDecoderLayer(_Layer):
    """Self-attention of the queries, attention to the image and a feed-forward network.

    Each has a residual connection and a norm. Dropout acts in six places: on the weights of both attentions, inside the
    feed-forward network and after the three sublayers.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        normalize_before: bool = False,
    ):
        super().__init__(d_model, dim_feedforward, dropout, activation, normalize_before)
        self.self_attn = MultiheadAttention(d_model, nhead, dropout)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        pos: Tensor | None = None,
        query_pos: Tensor | None = None,
    ) -> Tensor:
        """Apply the layer.

        Args:
            tgt: [Q, B, D].
            memory: [S, B, D].
            tgt_mask, memory_mask: [Q, Q], [Q, S], see `MultiheadAttention`.
            tgt_key_padding_mask, memory_key_padding_mask: bool [B, Q], [B, S], True = padding.
            pos: positions of the memory [S, B, D].
            query_pos: positions of the queries [Q, B, D].

        DETR passes `tgt`, `memory`, `memory_key_padding_mask`, `pos` and `query_pos`; the others are None.

        Returns:
            [Q, B, D]
        """
        if self.normalize_before:
            return self.forward_pre(
                tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask, pos, query_pos
            )
        return self.forward_post(
            tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask, pos, query_pos
        )

    def forward_post(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        pos: Tensor | None = None,
        query_pos: Tensor | None = None,
    ) -> Tensor:
        """Post-norm: a norm after each residual sum (the published default)."""
        tgt = self.norm1(tgt + self._attend_queries(tgt, tgt_mask, tgt_key_padding_mask, query_pos))
        image = self._attend_image(tgt, memory, memory_mask, memory_key_padding_mask, pos, query_pos)
        tgt = self.norm2(tgt + image)
        return self.norm3(tgt + self.dropout3(self._feed_forward(tgt)))

    def forward_pre(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        pos: Tensor | None = None,
        query_pos: Tensor | None = None,
    ) -> Tensor:
        """Pre-norm: a norm before each sublayer."""
        tgt = tgt + self._attend_queries(self.norm1(tgt), tgt_mask, tgt_key_padding_mask, query_pos)
        normed = self.norm2(tgt)
        tgt = tgt + self._attend_image(normed, memory, memory_mask, memory_key_padding_mask, pos, query_pos)
        return tgt + self.dropout3(self._feed_forward(self.norm3(tgt)))

    def _attend_queries(
        self, x: Tensor, mask: Tensor | None, padding: Tensor | None, query_pos: Tensor | None
    ) -> Tensor:
        queries = keys = self.with_pos_embed(x, query_pos)
        return self.dropout1(self.self_attn(queries, keys, x, mask, padding)[0])

    def _attend_image(
        self,
        x: Tensor,
        memory: Tensor,
        mask: Tensor | None,
        padding: Tensor | None,
        pos: Tensor | None,
        query_pos: Tensor | None,
    ) -> Tensor:
        queries, keys = self.with_pos_embed(x, query_pos), self.with_pos_embed(memory, pos)
        return self.dropout2(self.multihead_attn(queries, keys, memory, mask, padding)[0])


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    activations = {"relu": F.relu, "gelu": F.gelu, "glu": F.glu}
    if name not in activations:
        raise ValueError(f"unknown activation {name!r}: choose relu, gelu or glu")
    return activations[name]
