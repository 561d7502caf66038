"""DETR on one page: the weights of `models.detr.DETR` and its outputs, without dropout, pre-norm and masks of objects.

Shapes: `B` batch, `C` classes, `D` width, `Q` queries, `S` = h·w places of the feature map. Sequences come first."""

import torch
from torch import nn

RENAMED = {"backbone.0.body.": "trunk.", "transformer.": "", ".layers.": ".", "decoder.norm.": "norm."}  # there: here


def pad(images):
    """Images [3, h, w] of any sizes → a batch [B, 3, H, W] and its mask [B, H, W], True = padding."""
    H, W = (max(image.shape[side] for image in images) for side in (1, 2))
    batch, mask = images[0].new_zeros(len(images), 3, H, W), torch.ones(len(images), H, W, dtype=torch.bool)
    for image, pixels, padding in zip(images, batch, mask):
        pixels[:, : image.shape[1], : image.shape[2]] = image
        padding[: image.shape[1], : image.shape[2]] = False
    return batch, mask


def sine_positions(mask, D, temperature):
    """Mask [B, h, w] → positions [B, D, h, w], the y channels before the x channels."""
    divisor = temperature ** (2 * (torch.arange(D // 2) // 2) / (D // 2))  # [D/2], every number twice
    halves = []
    for axis in (1, 2):
        count = (~mask).cumsum(axis, dtype=torch.float32)  # 1, 2, 3, … over the image, then constant
        angle = count / (count.amax(axis, keepdim=True) + 1e-6) * (2 * torch.pi)  # in (0, 2π]
        phase = angle[..., None] / divisor  # [B, h, w, D/2]
        halves.append(torch.stack([phase[..., 0::2].sin(), phase[..., 1::2].cos()], dim=-1).flatten(-2))
    return torch.cat(halves, dim=-1).permute(0, 3, 1, 2)


class EncoderLayer(nn.Module):
    def __init__(self, D, heads, hidden):
        super().__init__()
        self.self_attn, self.norm1 = nn.MultiheadAttention(D, heads), nn.LayerNorm(D)
        self.linear1, self.linear2, self.norm2 = nn.Linear(D, hidden), nn.Linear(hidden, D), nn.LayerNorm(D)

    def forward(self, x, pos, padding):  # [S, B, D], [S, B, D], [B, S]
        x = self.norm1(x + self.self_attn(x + pos, x + pos, x, key_padding_mask=padding)[0])
        return self.norm2(x + self.linear2(self.linear1(x).relu()))


class DecoderLayer(EncoderLayer):
    def __init__(self, D, heads, hidden):
        super().__init__(D, heads, hidden)
        self.multihead_attn, self.norm3 = nn.MultiheadAttention(D, heads), nn.LayerNorm(D)

    def forward(self, x, query_pos, memory, pos, padding):  # [Q, B, D] twice, [S, B, D] twice, [B, S]
        x = self.norm1(x + self.self_attn(x + query_pos, x + query_pos, x)[0])
        x = self.norm2(x + self.multihead_attn(x + query_pos, memory + pos, memory, key_padding_mask=padding)[0])
        return self.norm3(x + self.linear2(self.linear1(x).relu()))


class MinimalDETR(nn.Module):
    def __init__(
        self, trunk, num_classes, hidden_dim, nheads, enc_layers, dec_layers, dim_feedforward, num_queries, temperature
    ):
        super().__init__()
        self.trunk, self.temperature = trunk, temperature
        self.input_proj = nn.Conv2d(trunk.channels[-1], hidden_dim, kernel_size=1)
        self.encoder = nn.ModuleList(EncoderLayer(hidden_dim, nheads, dim_feedforward) for _ in range(enc_layers))
        self.decoder = nn.ModuleList(DecoderLayer(hidden_dim, nheads, dim_feedforward) for _ in range(dec_layers))
        self.norm, self.query_embed = nn.LayerNorm(hidden_dim), nn.Embedding(num_queries, hidden_dim)
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.bbox_embed = nn.ModuleList(nn.Linear(hidden_dim, width) for width in (hidden_dim, hidden_dim, 4))

    def forward(self, images, mask):
        """[B, 3, H, W], [B, H, W] → logits [B, Q, C+1] and boxes [B, Q, 4] (cxcywh), also of the earlier layers."""
        x = self.input_proj(self.trunk(images))  # [B, D, h, w]
        mask = nn.functional.interpolate(mask[None].float(), size=x.shape[-2:])[0].bool()  # [B, h, w]
        pos = sine_positions(mask, x.shape[1], self.temperature).to(x.dtype)  # [B, D, h, w]
        memory, pos, padding = x.flatten(2).permute(2, 0, 1), pos.flatten(2).permute(2, 0, 1), mask.flatten(1)
        for layer in self.encoder:
            memory = layer(memory, pos, padding)  # [S, B, D]
        query_pos = self.query_embed.weight[:, None].expand(-1, len(images), -1)  # [Q, B, D]
        x, states = torch.zeros_like(query_pos), []
        for layer in self.decoder:
            x = layer(x, query_pos, memory, pos, padding)  # [Q, B, D]
            states.append(self.norm(x))  # for the heads; the next layer gets x itself
        hs = torch.stack(states).transpose(1, 2)  # [dec_layers, B, Q, D]
        first, second, third = self.bbox_embed
        logits, boxes = self.class_embed(hs), third(second(first(hs).relu()).relu()).sigmoid()
        *earlier, last = [{"pred_logits": c, "pred_boxes": b} for c, b in zip(logits, boxes)]
        return {**last, "aux_outputs": earlier}

    def load_detr(self, weights):  # the state_dict of a `models.detr.DETR` with the same sizes
        for there, here in RENAMED.items():
            weights = {name.replace(there, here): weight for name, weight in weights.items()}
        self.load_state_dict(weights)
