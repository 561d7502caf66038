"""DETR's transformer (paper, sections 3.2 and A.3, figure 10): positions are added in every attention layer.

Shapes: `B` batch, `S` = h·w image features, `Q` object queries, `D` width. Sequences come first: [S, B, D].
"""

from __future__ import annotations

import argparse
import copy

import torch
from torch import Tensor, nn

from models.fast.recompute import recomputed
from models.transformer_layers import TransformerDecoderLayer, TransformerEncoderLayer

__all__ = [
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "build_transformer",
]


class Transformer(nn.Module):
    """An encoder of image features and a decoder from object queries to object embeddings.

    Args:
        d_model: D.
        nhead: attention heads.
        num_encoder_layers, num_decoder_layers: depth of the two stacks.
        dim_feedforward: width inside each feed-forward part.
        dropout: rate of all dropouts in the layers.
        activation: relu, gelu or glu.
        normalize_before: pre-norm instead of post-norm.
        return_intermediate_dec: return the output of every decoder layer instead of only the last.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        normalize_before: bool = False,
        return_intermediate_dec: bool = False,
    ):
        super().__init__()
        sizes = (d_model, nhead, dim_feedforward, dropout, activation, normalize_before)
        # With pre-norm the residual sum is not normalised, so the encoder needs a norm after its last layer.
        encoder_norm = nn.LayerNorm(d_model) if normalize_before else None
        self.encoder = TransformerEncoder(TransformerEncoderLayer(*sizes), num_encoder_layers, encoder_norm)
        self.decoder = TransformerDecoder(
            TransformerDecoderLayer(*sizes), num_decoder_layers, nn.LayerNorm(d_model), return_intermediate_dec
        )
        self.d_model = d_model
        self.nhead = nhead
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, src: Tensor, mask: Tensor, query_embed: Tensor, pos_embed: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images and decode their objects.

        Args:
            src: projected features [B, D, h, w].
            mask: bool [B, h, w], True = padding.
            query_embed: learned query positions [Q, D].
            pos_embed: position encoding [B, D, h, w].

        Returns:
            (hs [decoder layers, or 1, B, Q, D], memory [B, D, h, w])
        """
        batch, width, h, w = src.shape
        src = src.flatten(2).permute(2, 0, 1)  # [S, B, D]
        pos = pos_embed.flatten(2).permute(2, 0, 1)  # [S, B, D]
        padding = mask.flatten(1)  # [B, S]
        query_pos = query_embed.unsqueeze(1).repeat(1, batch, 1)  # [Q, B, D]
        tgt = torch.zeros_like(query_pos)

        memory = self.encoder(src, src_key_padding_mask=padding, pos=pos)  # [S, B, D]
        hs = self.decoder(tgt, memory, memory_key_padding_mask=padding, pos=pos, query_pos=query_pos)  # [·, Q, B, D]
        return hs.transpose(1, 2), memory.permute(1, 2, 0).view(batch, width, h, w)


class TransformerEncoder(nn.Module):
    """`num_layers` copies of `encoder_layer`, followed by `norm` if given."""

    def __init__(self, encoder_layer: nn.Module, num_layers: int, norm: nn.Module | None = None):
        super().__init__()
        self.layers = _clones(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm
        self.recompute = False  # see `models.fast.recompute`

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        pos: Tensor | None = None,
    ) -> Tensor:
        """src [S, B, D], pos [S, B, D] → memory [S, B, D]; masks as in `TransformerEncoderLayer`."""
        output = src
        for layer in self.layers:
            if not torch.jit.is_scripting() and self.recompute:
                output = recomputed(layer, output, mask, src_key_padding_mask, pos)
            else:
                output = layer(output, src_mask=mask, src_key_padding_mask=src_key_padding_mask, pos=pos)
        if self.norm is not None:
            output = self.norm(output)
        return output


class TransformerDecoder(nn.Module):
    """`num_layers` copies of `decoder_layer`. `norm` is applied to the returned outputs only, not between layers."""

    def __init__(
        self,
        decoder_layer: nn.Module,
        num_layers: int,
        norm: nn.Module | None = None,
        return_intermediate: bool = False,
    ):
        super().__init__()
        self.layers = _clones(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm
        self.return_intermediate = return_intermediate
        self.recompute = False  # see `models.fast.recompute`

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
        """tgt [Q, B, D], memory [S, B, D] → [num_layers, or 1, Q, B, D]; masks as in `TransformerDecoderLayer`."""
        output = tgt
        states: list[Tensor] = []
        for layer in self.layers:
            if not torch.jit.is_scripting() and self.recompute:
                masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
                output = recomputed(layer, output, memory, *masks, pos, query_pos)
            else:
                output = layer(
                    output,
                    memory,
                    tgt_mask=tgt_mask,
                    memory_mask=memory_mask,
                    tgt_key_padding_mask=tgt_key_padding_mask,
                    memory_key_padding_mask=memory_key_padding_mask,
                    pos=pos,
                    query_pos=query_pos,
                )
            states.append(output)  # the next layer gets the state without the norm
        hs = torch.stack(states) if self.return_intermediate else output.unsqueeze(0)
        if self.norm is not None:
            hs = self.norm(hs)
        return hs


def _clones(layer: nn.Module, count: int) -> nn.ModuleList:
    return nn.ModuleList([copy.deepcopy(layer) for _ in range(count)])


def build_transformer(args: argparse.Namespace) -> Transformer:
    """The transformer for the command line's settings. It returns the output of every decoder layer."""
    return Transformer(
        d_model=args.hidden_dim,
        nhead=args.nheads,
        num_encoder_layers=args.enc_layers,
        num_decoder_layers=args.dec_layers,
        dim_feedforward=args.dim_feedforward,
        dropout=args.dropout,
        normalize_before=args.pre_norm,
        return_intermediate_dec=True,
    )
