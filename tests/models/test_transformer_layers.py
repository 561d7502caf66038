"""Encoder and decoder layers: dropout, positions, masks, and equality with PyTorch's layers."""

import pytest
import torch
from torch import Tensor, nn

from models.attention import MultiheadAttention
from models.fast import dropout as fast
from models.transformer_layers import TransformerDecoderLayer, TransformerEncoderLayer
from tests.helpers.transformer_samples import (
    INNER,
    PLACES,
    PRE_OR_POST,
    B,
    D,
    H,
    Q,
    S,
    randomised,
    record_dropout,
    tensors,
)

LAYERS = pytest.mark.parametrize("kind", ["encoder", "decoder"])


def encoder_layer(pre_norm: bool = False, dropout: float = 0.0) -> TransformerEncoderLayer:
    return randomised(TransformerEncoderLayer(D, H, INNER, dropout, "relu", pre_norm))


def decoder_layer(pre_norm: bool = False, dropout: float = 0.0) -> TransformerDecoderLayer:
    return randomised(TransformerDecoderLayer(D, H, INNER, dropout, "relu", pre_norm))


def run_layer(kind: str, layer: nn.Module) -> Tensor:
    """A layer on random states, memory and positions."""
    if kind == "encoder":
        src, pos = tensors(S, B, D, count=2)
        return layer(src, pos=pos)
    (tgt, query_pos), (memory, pos) = tensors(Q, B, D, count=2), tensors(S, B, D, count=2, seed=1)
    return layer(tgt, memory, pos=pos, query_pos=query_pos)


def make_layer(kind: str, pre_norm: bool, dropout: float = 0.0) -> nn.Module:
    return (encoder_layer if kind == "encoder" else decoder_layer)(pre_norm, dropout)


def set_fused(module: nn.Module, fused: bool) -> None:
    for attention in module.modules():
        if isinstance(attention, MultiheadAttention):
            attention.fused = fused


@LAYERS
@PRE_OR_POST
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_dropout_sits_at_four_places_of_an_encoder_and_six_of_a_decoder_layer(monkeypatch, kind, pre_norm, fused):
    layer = make_layer(kind, pre_norm, dropout=0.3).train()
    set_fused(layer, fused)
    calls = record_dropout(monkeypatch)
    run_layer(kind, layer)
    assert calls == [(place, 0.3) for place in PLACES[kind]]


@LAYERS
@PRE_OR_POST
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_nothing_is_dropped_at_evaluation(monkeypatch, kind, pre_norm, fused):
    layer = make_layer(kind, pre_norm, dropout=0.3).eval()
    set_fused(layer, fused)
    calls = record_dropout(monkeypatch)
    run_layer(kind, layer)
    assert {rate for _, rate in calls} <= {0.0}


@LAYERS
@PRE_OR_POST
def test_dropout_acts_on_each_sublayers_output_before_the_residual_sum(monkeypatch, kind, pre_norm):
    layer = make_layer(kind, pre_norm)
    monkeypatch.setattr(fast, "dropout", lambda input, *args: torch.zeros_like(input))
    out = run_layer(kind, layer)  # only the residual path and its norms remain
    expected = tensors(S if kind == "encoder" else Q, B, D, count=2)[0]
    if not pre_norm:
        for norm in [layer.norm1, layer.norm2] + ([layer.norm3] if kind == "decoder" else []):
            expected = norm(expected)
    torch.testing.assert_close(out, expected)


@LAYERS
@PRE_OR_POST
def test_dropout_inside_the_feed_forward_part_comes_after_the_activation(monkeypatch, kind, pre_norm):
    seen: list[Tensor] = []
    monkeypatch.setattr(fast, "dropout", lambda input, *args: seen.append(input) or input)
    run_layer(kind, make_layer(kind, pre_norm))
    (inside,) = [x for x in seen if x.shape[-1] == INNER]
    assert (inside >= 0).all() and (inside == 0).any() and (inside > 0).any()


@LAYERS
@PRE_OR_POST
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_layers_without_positions_equal_pytorchs(kind, pre_norm, activation):
    ours_of, theirs_of = {
        "encoder": (TransformerEncoderLayer, nn.TransformerEncoderLayer),
        "decoder": (TransformerDecoderLayer, nn.TransformerDecoderLayer),
    }[kind]
    ours = randomised(ours_of(D, H, INNER, 0.0, activation, pre_norm))
    theirs = theirs_of(D, H, INNER, 0.0, activation, norm_first=pre_norm)
    theirs.load_state_dict(ours.state_dict())
    (tgt,), (memory,) = tensors(Q, B, D, count=1), tensors(S, B, D, count=1, seed=1)
    arguments = (tgt,) if kind == "encoder" else (tgt, memory)
    torch.testing.assert_close(ours(*arguments), theirs(*arguments), rtol=1e-4, atol=1e-5)


@LAYERS
def test_glu_halves_the_inner_width(kind):
    layer = (TransformerEncoderLayer if kind == "encoder" else TransformerDecoderLayer)(D, H, INNER, 0.0, "glu")
    assert layer.linear2.in_features == INNER // 2
    assert run_layer(kind, layer).isfinite().all()


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="unknown activation 'swish'"):
        TransformerEncoderLayer(D, H, INNER, activation="swish")


@LAYERS
@PRE_OR_POST
def test_positions_are_added_to_queries_and_keys_never_to_values(kind, pre_norm):
    layer = make_layer(kind, pre_norm)
    seen: dict[str, tuple[Tensor, ...]] = {}
    normed: list[Tensor] = []
    layer.norm1.register_forward_hook(lambda module, args, out: normed.append(out))
    layer.norm2.register_forward_hook(lambda module, args, out: normed.append(out))
    for name, module in layer.named_children():
        if isinstance(module, MultiheadAttention):
            module.register_forward_pre_hook(lambda module, args, name=name: seen.update({name: args[:3]}))
    run_layer(kind, layer)

    state, own_pos = tensors(S if kind == "encoder" else Q, B, D, count=2)
    state = normed[0] if pre_norm else state
    expected = {"self_attn": (state + own_pos, state + own_pos, state)}
    if kind == "decoder":
        memory, pos = tensors(S, B, D, count=2, seed=1)
        state = normed[1] if pre_norm else normed[0]
        expected["multihead_attn"] = (state + own_pos, memory + pos, memory)
    assert seen.keys() == expected.keys()
    torch.testing.assert_close(seen, expected)


@LAYERS
@PRE_OR_POST
def test_positions_do_nothing_where_attention_is_uniform(kind, pre_norm):
    layer = make_layer(kind, pre_norm)
    with torch.no_grad():
        for module in layer.modules():
            if isinstance(module, MultiheadAttention):  # zero queries give all keys the same score
                module.in_proj_weight[:D].zero_()
                module.in_proj_bias[:D].zero_()
    state, memory = tensors(S, B, D, count=2)
    arguments, names = ((state,), ["pos"]) if kind == "encoder" else ((state, memory), ["pos", "query_pos"])
    placed = layer(*arguments, **dict(zip(names, tensors(S, B, D, count=2, seed=4))))
    torch.testing.assert_close(layer(*arguments), placed)


def test_attention_masks_reach_their_attention():
    isolated = ~torch.eye(Q, dtype=torch.bool)
    (tgt, query_pos), (memory, pos) = tensors(Q, B, D, count=2), tensors(S, B, D, count=2, seed=1)
    layer, others = decoder_layer(), torch.ones(Q, 1, 1)
    others[0] = 0
    alone = [layer(x, memory, tgt_mask=isolated, query_pos=query_pos)[0] for x in (tgt, tgt + others)]
    torch.testing.assert_close(*alone)
    first_only = torch.ones(Q, S, dtype=torch.bool)
    first_only[:, 0] = False
    changed = torch.cat([memory[:1], memory[1:] + 1])
    torch.testing.assert_close(*[layer(tgt, m, memory_mask=first_only, pos=pos) for m in (memory, changed)])
