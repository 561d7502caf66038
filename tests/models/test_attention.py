"""Attention: equal to PyTorch's; the fused and the plain implementation agree in outputs, weights and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import MultiheadAttention
from models.fast import dropout as fast

D, H, L, S, B = 16, 4, 5, 6, 3


def inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """query [L, B, D], key and value [S, B, D], all different."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, B, D, generator=generator, dtype=dtype).requires_grad_() for n in (L, S, S)]


def padding() -> Tensor:
    """bool [B, S]: the first image has no padding, the second one padded key, the third half of its keys."""
    mask = torch.zeros(B, S, dtype=torch.bool)
    mask[1, -1] = mask[2, S // 2 :] = True
    return mask


def masks(name: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    flat = torch.rand(L, S, generator=generator) > 0.6
    per_head = torch.rand(B * H, L, S, generator=generator) > 0.6
    flat[:, 0] = per_head[:, :, 0] = False  # every query can attend to something
    return {
        "none": {},
        "padding": {"key_padding_mask": padding()},
        "bool": {"attn_mask": flat},
        "added": {"attn_mask": torch.randn(L, S, generator=generator)},
        "per head": {"attn_mask": per_head},
        "both": {"attn_mask": flat, "key_padding_mask": padding()},
    }[name]


MASKS = ["none", "padding", "bool", "added", "per head", "both"]


def attention(fused: bool = True, dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> MultiheadAttention:
    """An attention with random biases, so that each of them affects the output."""
    torch.manual_seed(2)
    module = MultiheadAttention(D, H, dropout)
    nn.init.normal_(module.in_proj_bias)
    nn.init.normal_(module.out_proj.bias)
    module.fused = fused
    return module.to(dtype)


def run(module: nn.Module, name: str, **options: bool) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """Output, weights and the gradients of inputs and parameters, in float64.

    The bias of the keys has a gradient of zero, since softmax ignores a shift: in any type it is the rounding noise.
    """
    module = module.double()
    arguments = inputs(torch.float64)
    given = {key: mask.double() if mask.is_floating_point() else mask for key, mask in masks(name).items()}
    out, weights = module(*arguments, **given, **options)
    wanted = [*arguments, *(parameter for _, parameter in sorted(module.named_parameters()))]
    return out, weights, list(torch.autograd.grad(out.square().sum(), wanted))


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", MASKS)
def test_equal_to_pytorchs_attention_with_the_same_state_dict(name, fused):
    ours, theirs = attention(fused), nn.MultiheadAttention(D, H)
    theirs.load_state_dict(ours.state_dict())
    out, _, gradients = run(ours, name)
    expected, _, expected_gradients = run(theirs, name, need_weights=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", MASKS)
def test_fused_and_plain_agree(name):
    fused, plain = run(attention(True), name), run(attention(False), name)
    torch.testing.assert_close(fused[0], plain[0])
    torch.testing.assert_close(fused[2], plain[2], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", MASKS)
def test_asking_for_weights_does_not_change_the_output(name):
    fused, plain = run(attention(), name), run(attention(), name, need_weights=True)
    torch.testing.assert_close(fused[0], plain[0])
    assert fused[1] is None and plain[1] is not None


@pytest.mark.parametrize("name", MASKS)
def test_weights_equal_pytorchs_for_every_head(name):
    ours, theirs = attention(), nn.MultiheadAttention(D, H)
    theirs.load_state_dict(ours.state_dict())
    _, expected = theirs(*inputs(), **masks(name), need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(ours(*inputs(), **masks(name), need_weights=True)[1], expected)


def test_weights_sum_to_one_and_are_zero_at_padding():
    weights = attention()(*inputs(), key_padding_mask=padding(), need_weights=True)[1]
    assert weights.shape == (B, H, L, S)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, L))
    hidden = padding()[:, None, None].expand_as(weights)
    assert (weights[hidden] == 0).all() and (weights[~hidden] > 0).all()


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_padded_keys_and_values_do_not_matter(fused):
    module, (query, key, value) = attention(fused), inputs()
    before, _ = module(query, key, value, key_padding_mask=padding())
    hidden = padding().T[..., None]  # [S, B, 1]
    after, _ = module(query, key + 9 * hidden, value - 7 * hidden, key_padding_mask=padding())
    assert torch.equal(before, after)
    shifted, _ = module(query, key, value + 1.0 * ~hidden, key_padding_mask=padding())
    assert not torch.allclose(before, shifted)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_one_tensor_as_query_and_key_gives_the_same_output_as_two(fused):
    module, (_, x, value) = attention(fused), inputs()
    torch.testing.assert_close(module(x, x, value)[0], module(x, x.clone(), value)[0])


def test_the_state_dict_is_pytorchs():
    ours, theirs = MultiheadAttention(D, H).state_dict(), nn.MultiheadAttention(D, H).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_one_xavier_draw_over_the_stacked_projection_and_zero_biases():
    torch.manual_seed(0)
    module = MultiheadAttention(256, 8)
    bound = math.sqrt(6 / (4 * 256))  # fan-in 256, fan-out 3 · 256
    for part in module.in_proj_weight.chunk(3):
        assert 0.99 * bound < part.abs().max() <= bound
    assert not module.in_proj_bias.any() and not module.out_proj.bias.any()


def recorded_rates(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """A list to which every dropout of attention weights adds (implementation, rate)."""
    calls: list[tuple[str, float]] = []
    fused, dropout = F.scaled_dot_product_attention, fast.dropout

    def spy_fused(*args, dropout_p=0.0, **kwargs):
        calls.append(("fused", dropout_p))
        return fused(*args, dropout_p=dropout_p, **kwargs)

    def spy_dropout(input, p, training):
        calls.append(("plain", p if training else 0.0))
        return dropout(input, p, training)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy_fused)
    monkeypatch.setattr(fast, "dropout", spy_dropout)
    return calls


@pytest.mark.parametrize("way", ["fused", "plain"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_weights_are_dropped_at_the_given_rate_in_training_only(monkeypatch, way, training):
    module = attention(way == "fused", dropout=0.3).train(training)
    calls = recorded_rates(monkeypatch)
    module(*inputs())
    # there is no fused kernel with dropout for a CPU
    assert calls == [("plain", 0.3) if training else (way, 0.0)]


@pytest.mark.parametrize("way", ["fused", "plain"])
def test_dropout_changes_the_output_in_training_only(way):
    module = attention(way == "fused", dropout=0.5)
    assert not torch.equal(module.train()(*inputs())[0], module(*inputs())[0])
    assert torch.equal(module.eval()(*inputs())[0], module(*inputs())[0])


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_is_kept(fused, dtype):
    out, _ = attention(fused, dtype=dtype)(*inputs(dtype), key_padding_mask=padding())
    assert out.dtype == dtype and out.isfinite().all()


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="--hidden_dim divisible by --nheads"):
        MultiheadAttention(18, 4)
