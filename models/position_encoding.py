"""Sine and learned encodings of the position of a feature in its image (paper, section A.4 and figure 10).

Shapes: `B` batch, `P` num_pos_feats (half the transformer's width), `h`, `w` the feature map's size.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor, nn

from util.nested_tensor import NestedTensor


class PositionEmbeddingSine(nn.Module):
    """Sines and cosines of the row and column, counted over the un-padded part of each image.

    Args:
        num_pos_feats: channels for each axis.
        temperature: about the ratio of the longest wavelength to the shortest, which is 2π.
        normalize: express positions as fractions of the size of the un-padded image, times `scale`.
        scale: the length of a normalised axis; 2π when None.

    Raises:
        ValueError: `scale` without `normalize`.
    """

    def __init__(
        self,
        num_pos_feats: int = 64,
        temperature: float = 10000,
        normalize: bool = False,
        scale: float | None = None,
    ):
        super().__init__()
        if scale is not None and not normalize:
            raise ValueError("scale is the length of a normalised axis: pass normalize=True with it")
        self.num_pos_feats = num_pos_feats
        self.temperature = temperature
        self.normalize = normalize
        self.scale = 2 * math.pi if scale is None else scale

    def forward(self, tensor_list: NestedTensor) -> Tensor:
        """Features [B, C, h, w] with mask [B, h, w] → float32 [B, 2P, h, w], the y channels first."""
        mask = tensor_list.mask
        assert mask is not None
        real = ~mask
        y = real.cumsum(1, dtype=torch.float32)  # [B, h, w]
        x = real.cumsum(2, dtype=torch.float32)  # [B, h, w]
        if self.normalize:
            eps = 1e-6
            y = y / (y[:, -1:, :] + eps) * self.scale
            x = x / (x[:, :, -1:] + eps) * self.scale
        channel = torch.arange(self.num_pos_feats, dtype=torch.float32, device=mask.device)  # [P]
        divisor = self.temperature ** (2 * torch.div(channel, 2, rounding_mode="floor") / self.num_pos_feats)  # [P]
        return torch.cat([_sines_and_cosines(y, divisor), _sines_and_cosines(x, divisor)], dim=3).permute(0, 3, 1, 2)


def _sines_and_cosines(position: Tensor, divisor: Tensor) -> Tensor:
    """Positions [B, h, w] → [B, h, w, P]: sines on even channels, cosines on odd ones.

    The phase of a channel is the position over its divisor [P], so its wavelength is 2π times the divisor.
    """
    phase = position[:, :, :, None] / divisor  # [B, h, w, P]
    return torch.stack([phase[..., 0::2].sin(), phase[..., 1::2].cos()], dim=4).flatten(3)


class PositionEmbeddingLearned(nn.Module):
    """A learned vector for each of 50 columns and 50 rows.

    Args:
        num_pos_feats: channels for each axis.
    """

    def __init__(self, num_pos_feats: int = 256):
        super().__init__()
        self.row_embed = nn.Embedding(50, num_pos_feats)
        self.col_embed = nn.Embedding(50, num_pos_feats)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in [0, 1)."""
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self, tensor_list: NestedTensor) -> Tensor:
        """Features [B, C, h, w] → [B, 2P, h, w], the x channels first.

        Raises:
            ValueError: a feature map of more than 50 rows or columns.
        """
        x = tensor_list.tensors
        h, w = x.shape[-2:]
        rows, columns = self.row_embed.num_embeddings, self.col_embed.num_embeddings
        if h > rows or w > columns:
            raise ValueError(
                f"the feature map is {h} x {w}, but learned positions end at {rows} x {columns}: use smaller "
                "images (--train_sizes, --max_size, --val_size), omit --dilation, or use --position_embedding sine"
            )
        column = self.col_embed.weight[:w]  # [w, P]
        row = self.row_embed.weight[:h]  # [h, P]
        position = torch.cat(
            [column.unsqueeze(0).expand(h, w, -1), row.unsqueeze(1).expand(h, w, -1)], dim=-1
        )  # [h, w, 2P]
        return position.permute(2, 0, 1).unsqueeze(0).expand(x.shape[0], -1, -1, -1)


def build_position_encoding(args: argparse.Namespace) -> nn.Module:
    """The encoding `args.position_embedding` for a transformer of width `args.hidden_dim`.

    Raises:
        ValueError: an unknown name, or a width that cannot be divided between the axes.
    """
    features = args.hidden_dim // 2
    if args.hidden_dim % (4 if args.position_embedding in ("v2", "sine") else 2):
        raise ValueError(
            f"--hidden_dim {args.hidden_dim} cannot be divided between the two axes of the position encoding: use a "
            "multiple of 4"
        )
    if args.position_embedding in ("v2", "sine"):
        return PositionEmbeddingSine(features, getattr(args, "pos_temperature", 10000), normalize=True)
    if args.position_embedding in ("v3", "learned"):
        return PositionEmbeddingLearned(features)
    raise ValueError(f"unknown --position_embedding {args.position_embedding!r}: choose sine or learned")
