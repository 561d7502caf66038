"""Encoder and decoder stacks: initialisation, norms, padding, dropout."""

import argparse
import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.transformer import (
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    build_transformer,
)
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


def flags(**changes) -> argparse.Namespace:
    values = {"hidden_dim": D, "nheads": H, "enc_layers": 1, "dec_layers": 2, "dim_feedforward": INNER}
    return argparse.Namespace(**(values | {"dropout": 0.1, "pre_norm": False} | changes))


def run_transformer(transformer: Transformer, **changes: Tensor) -> tuple[Tensor, Tensor]:
    """Run on a 3 × 4 feature map; the second image is padded after 2 rows and 3 columns."""
    inputs = dict(zip(("src", "pos_embed"), tensors(B, D, 3, 4, count=2)))
    inputs |= {"query_embed": tensors(Q, D, count=1, seed=1)[0], "mask": padding()}
    return transformer(**(inputs | changes))


def padding() -> Tensor:
    mask = torch.zeros(B, 3, 4, dtype=torch.bool)
    mask[1, 2:] = mask[1, :, 3:] = True
    return mask


def test_the_layers_are_given_what_their_docstrings_say_and_none_for_the_rest():
    given = []

    def record(layer, args, kwargs):
        passed = inspect.signature(layer.forward).bind(*args, **kwargs).arguments
        given.append({name for name, value in passed.items() if value is not None})

    transformer = Transformer(D, H, 1, 1, INNER)
    for layer in (*transformer.encoder.layers, *transformer.decoder.layers):
        layer.register_forward_pre_hook(record, with_kwargs=True)
    run_transformer(transformer)
    assert given == [
        {"src", "src_key_padding_mask", "pos"},
        {"tgt", "memory", "memory_key_padding_mask", "pos", "query_pos"},
    ]


# --- Dropout ----------------------------------------------------------------------------------------------------------


@PRE_OR_POST
def test_dropout_acts_only_in_the_layers(monkeypatch, pre_norm):
    transformer = Transformer(D, H, 2, 3, INNER, 0.2, "relu", pre_norm, True).train()
    calls = record_dropout(monkeypatch)
    run_transformer(transformer)
    assert calls == [(place, 0.2) for place in 2 * PLACES["encoder"] + 3 * PLACES["decoder"]]


def test_the_dropout_rate_of_the_settings_is_used_everywhere(monkeypatch):
    calls = record_dropout(monkeypatch)
    run_transformer(build_transformer(flags(dropout=0.25)).train())
    assert calls == [(place, 0.25) for place in PLACES["encoder"] + 2 * PLACES["decoder"]]


# --- Initialisation ---------------------------------------------------------------------------------------------------


def test_every_matrix_starts_xavier_uniform_within_its_bound():
    torch.manual_seed(0)
    transformer = Transformer(256, 8, 1, 1, 512)
    matrices = {name: p for name, p in transformer.named_parameters() if p.dim() > 1}
    assert len(matrices) == 3 * 2 + 2 * 2  # two projections of 3 attentions, two matrices of 2 feed-forward networks
    for name, weight in matrices.items():
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.99 * bound < weight.abs().max() <= bound, name


def test_the_stacked_in_projection_is_one_draw():
    torch.manual_seed(0)
    for name, weight in Transformer(256, 8, 1, 1, 32).named_parameters():
        if name.endswith("in_proj_weight"):
            bounds = [part.abs().max().item() for part in weight.chunk(3)]
            assert bounds == pytest.approx([math.sqrt(6 / (4 * 256))] * 3, rel=0.01)  # 0.0765; three draws: 0.108


@PRE_OR_POST
def test_attention_biases_start_at_zero_and_other_linear_ones_as_in_pytorch(pre_norm):
    torch.manual_seed(0)
    transformer = Transformer(64, 4, 1, 1, 256, normalize_before=pre_norm)
    for name, parameter in transformer.named_parameters():
        if name.endswith("in_proj_bias") or name.endswith("out_proj.bias"):
            assert not parameter.any(), name
        elif name.endswith("linear1.bias") or name.endswith("linear2.bias"):
            bound = 1 / math.sqrt(64 if "linear1" in name else 256)
            assert 0.8 * bound < parameter.abs().max() <= bound, name
        elif "norm" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all(), name


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_layers_start_with_equal_biases_and_different_weights(stack):
    first, second = getattr(Transformer(D, H, 2, 2, INNER), stack).layers
    second = dict(second.named_parameters())
    for name, parameter in first.named_parameters():
        assert parameter is not second[name], "layers share no parameters"
        assert torch.equal(parameter, second[name]) == (parameter.dim() == 1), name


# --- Norms and states -------------------------------------------------------------------------------------------------


@PRE_OR_POST
def test_the_decoder_passes_on_the_state_without_norm_and_norms_each_output(pre_norm):
    layer = TransformerDecoderLayer(D, H, INNER, 0.0, "relu", pre_norm)
    decoder = randomised(TransformerDecoder(layer, 2, nn.LayerNorm(D), return_intermediate=True))
    (tgt, query_pos), (memory, pos) = tensors(Q, B, D, count=2), tensors(S, B, D, count=2, seed=1)
    hs = decoder(tgt, memory, pos=pos, query_pos=query_pos)

    first = decoder.layers[0](tgt, memory, pos=pos, query_pos=query_pos)
    second = decoder.layers[1](first, memory, pos=pos, query_pos=query_pos)
    torch.testing.assert_close(hs, torch.stack([decoder.norm(first), decoder.norm(second)]))

    decoder.return_intermediate = False
    torch.testing.assert_close(decoder(tgt, memory, pos=pos, query_pos=query_pos), decoder.norm(second)[None])


def test_a_decoder_without_norm_returns_its_states():
    decoder = TransformerDecoder(TransformerDecoderLayer(D, H, INNER, 0.0), 1)
    (tgt,), (memory,) = tensors(Q, B, D, count=1), tensors(S, B, D, count=1)
    torch.testing.assert_close(decoder(tgt, memory), decoder.layers[0](tgt, memory)[None])


@PRE_OR_POST
def test_the_encoder_ends_in_a_norm_only_with_pre_norm(pre_norm):
    transformer = randomised(Transformer(D, H, 2, 1, INNER, 0.0, "relu", pre_norm))
    src, pos = tensors(S, B, D, count=2)
    state = src
    for layer in transformer.encoder.layers:
        state = layer(state, pos=pos)
    norms = [name for name, module in transformer.encoder.named_children() if isinstance(module, nn.LayerNorm)]
    assert norms == (["norm"] if pre_norm else [])
    expected = transformer.encoder.norm(state) if pre_norm else state
    torch.testing.assert_close(transformer.encoder(src, pos=pos), expected)
    assert isinstance(transformer.decoder.norm, nn.LayerNorm)


# --- Positions and masks ----------------------------------------------------------------------------------------------


@PRE_OR_POST
def test_true_in_the_mask_hides_a_feature_from_all_attention(pre_norm):
    transformer = randomised(Transformer(D, H, 2, 2, INNER, 0.0, "relu", pre_norm, True))
    hs, memory = run_transformer(transformer)
    src, pos = tensors(B, D, 3, 4, count=2)
    hidden = padding()[:, None]  # [B, 1, 3, 4]
    change, pos_change = tensors(B, D, 3, 4, count=2, seed=5)
    same_hs, same_memory = run_transformer(transformer, src=src + change * hidden, pos_embed=pos + pos_change * hidden)
    torch.testing.assert_close(same_hs, hs)
    shown = (~hidden).expand_as(memory)
    torch.testing.assert_close(same_memory[shown], memory[shown])

    other_hs, _ = run_transformer(transformer, src=src + change * ~hidden)
    assert (other_hs - hs).abs().amax(dim=(0, 2, 3)).min() > 1e-3, "features that are not hidden matter in both images"


def test_output_shapes():
    hs, memory = run_transformer(Transformer(D, H, 2, 3, INNER, return_intermediate_dec=True))
    assert (hs.shape, memory.shape) == ((3, B, Q, D), (B, D, 3, 4))
    assert run_transformer(Transformer(D, H, 2, 3, INNER))[0].shape == (1, B, Q, D)


def test_queries_start_as_zeros_with_learned_positions():
    transformer = Transformer(D, H, 1, 1, INNER, 0.0)
    seen = []
    transformer.decoder.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append((args[0], kwargs)), with_kwargs=True
    )
    run_transformer(transformer)
    (tgt, kwargs), query_embed = seen[0], tensors(Q, D, count=1, seed=1)[0]
    assert tgt.shape == (Q, B, D) and not tgt.any()
    assert torch.equal(kwargs["query_pos"], query_embed[:, None].expand(Q, B, D))


def test_the_encoders_attention_mask_reaches_its_layers():
    transformer, alone = Transformer(D, H, 2, 1, INNER, 0.0), ~torch.eye(S, dtype=torch.bool)
    src, change = tensors(S, B, D, count=2)
    change[0] = 0
    outs = [transformer.encoder(x, mask=alone)[0] for x in (src, src + change)]
    torch.testing.assert_close(*outs)


# --- Modes, types, command line ---------------------------------------------------------------------------------------


@PRE_OR_POST
def test_evaluation_is_deterministic_and_training_is_not(pre_norm):
    transformer = Transformer(D, H, 1, 1, INNER, 0.5, "relu", pre_norm).train()
    assert not torch.equal(run_transformer(transformer)[0], run_transformer(transformer)[0])
    transformer.eval()
    assert torch.equal(run_transformer(transformer)[0], run_transformer(transformer)[0])


def test_float64_is_kept():
    src, pos = tensors(B, D, 3, 4, count=2)
    transformer = Transformer(D, H, 1, 1, INNER).double()
    hs, memory = transformer(src.double(), padding(), torch.zeros(Q, D).double(), pos.double())
    assert hs.dtype == memory.dtype == torch.float64


@PRE_OR_POST
def test_the_transformer_of_the_settings(pre_norm):
    transformer = build_transformer(flags(pre_norm=pre_norm))
    assert (transformer.d_model, transformer.nhead) == (D, H)
    assert (transformer.encoder.num_layers, transformer.decoder.num_layers) == (1, 2)
    assert len(transformer.encoder.layers) == 1 and len(transformer.decoder.layers) == 2
    assert transformer.decoder.return_intermediate
    for layer in [*transformer.encoder.layers, *transformer.decoder.layers]:
        assert layer.linear1.out_features == INNER and layer.normalize_before == pre_norm
        assert layer.self_attn.num_heads == H and layer.activation is F.relu
