"""Multi-head attention (paper, section A.1), with the parameters of `torch.nn.MultiheadAttention` under the same keys.

Shapes: `L` queries, `S` keys, `B` batch, `D` width, `H` heads, `d` = D / H. Sequences come first: [L, B, D].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fast import dropout as fast


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention in `num_heads` subspaces.

    There are two equivalent implementations: PyTorch's fused kernel, and explicit matrix products, which can also
    return the weights. The fused kernel is used unless the weights are requested or `fused` is False.

    Args:
        embed_dim: D.
        num_heads: H.
        dropout: rate at which attention weights are dropped in training.

    Raises:
        ValueError: D is not divisible by H.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(
                f"a width of {embed_dim} cannot be split into {num_heads} heads: "
                "choose --hidden_dim divisible by --nheads"
            )
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.fused = True
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))  # query, key, value stacked
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to `key` and `value` from `query`.

        Args:
            query: [L, B, D].
            key, value: [S, B, D].
            attn_mask: bool [L, S] or [B·H, L, S], True = must not attend; or float, added to the scores.
            key_padding_mask: bool [B, S], True = padding, which gets no attention.
            need_weights: also return the attention weights.

        Returns:
            (output [L, B, D], weights [B, H, L, S] or None)
        """
        q, k, v = self._project(query, key, value)  # [B, H, L, d], [B, H, S, d] twice
        mask = self._merge_masks(attn_mask, key_padding_mask, q.shape[0], q.dtype)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        # PyTorch has no fused kernel with dropout for CPUs
        if self.fused and not need_weights and not (dropout > 0.0 and q.device.type == "cpu"):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)  # [B, H, L, d]
        else:
            scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)  # [B, H, L, S]
            if mask is not None:
                scores = scores + mask
            weights = fast.dropout(scores.softmax(dim=-1), dropout, self.training)
            out = weights @ v  # [B, H, L, d]
        out = out.permute(2, 0, 1, 3).flatten(2)  # [L, B, D]
        return self.out_proj(out), weights if need_weights else None

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three input projections, split into heads. A tensor that is both query and key is projected once."""
        d = self.embed_dim
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if query is key:
            q, k = F.linear(query, weight[: 2 * d], bias[: 2 * d]).chunk(2, dim=-1)
        else:
            q = F.linear(query, weight[:d], bias[:d])
            k = F.linear(key, weight[d : 2 * d], bias[d : 2 * d])
        v = F.linear(value, weight[2 * d :], bias[2 * d :])
        return self._split_heads(q), self._split_heads(k), self._split_heads(v)

    def _split_heads(self, x: Tensor) -> Tensor:
        """[L, B, D] → [B, H, L, d]."""
        return x.unflatten(-1, [self.num_heads, self.embed_dim // self.num_heads]).permute(1, 2, 0, 3)

    def _merge_masks(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, batch: int, dtype: torch.dtype
    ) -> Tensor | None:
        """Both masks as one tensor to add to the scores; it broadcasts to [B, H, L, S]."""
        mask: Tensor | None = None
        if attn_mask is not None:
            mask = _additive(attn_mask, dtype)
            if mask.ndim == 3:
                mask = mask.unflatten(0, [batch, self.num_heads])
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, dtype)[:, None, None, :]  # [B, 1, 1, S]
            mask = padding if mask is None else mask + padding
        return mask


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask as a float mask: True → -inf, False → 0."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))
    return mask.to(dtype)
