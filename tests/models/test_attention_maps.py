"""Recorded attention: the outputs stay the same, weights sum to 1, and nothing remains changed afterwards."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models import build_model
from models.attention_maps import record_attention
from tests.helpers.runs import parse


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    flags = "--num_classes 3 --enc_layers 2 --dec_layers 3 --num_queries 5".split()  # fewer queries than positions
    return build_model(parse("nowhere", *flags))[0].eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_outputs_are_the_same_with_and_without(model, image):
    before = model(image)
    with record_attention(model, encoder_layers=2):
        recorded = model(image)
    for name in ("pred_logits", "pred_boxes"):
        torch.testing.assert_close(recorded[name], before[name], atol=1e-5, rtol=0)
        assert torch.equal(model(image)[name], before[name])


@torch.no_grad()
def test_weights_sum_to_one_over_the_feature_map(model, image):
    with record_attention(model, encoder_layers=2) as maps:
        model(image)
        model(image[:1])  # the maps are those of the last pass
    h, w = maps.size
    assert h / w == pytest.approx(64 / 96, abs=0.2)
    assert [part.shape for part in maps.decoder] == [(1, 5, h, w)] * 3
    assert [part.shape for part in maps.encoder] == [(1, h, w, h, w)] * 2
    for part in (*maps.decoder, *maps.encoder):
        torch.testing.assert_close(part.sum(dim=(-2, -1)), torch.ones(part.shape[:-2]))


@torch.no_grad()
def test_the_encoder_map_of_a_position_is_its_row_of_weights(model, image):
    seen = {}
    attention = model.transformer.encoder.layers[-1].self_attn
    handle = attention.register_forward_pre_hook(lambda module, inputs: seen.update(inputs=inputs))
    with record_attention(model) as maps:
        model(image)
    handle.remove()
    _, weights = attention(*seen["inputs"], need_weights=True)
    h, w = maps.size
    torch.testing.assert_close(maps.encoder[0][1, 1, 2].flatten(), weights.mean(1)[1, 1 * w + 2])
    assert len(maps.encoder) == 1


@torch.no_grad()
def test_fused_attention_is_used_unless_weights_are_recorded(model, image, monkeypatch):
    calls, fused = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k))
    with pytest.raises(KeyboardInterrupt), record_attention(model):
        model(image)
        assert len(calls) == 4  # the first encoder layer and the self-attention of three decoder layers
        raise KeyboardInterrupt
    calls.clear()
    model(image)
    assert len(calls) == 2 + 2 * 3


@torch.no_grad()
@pytest.mark.parametrize("asked, recorded", [(0, 0), (1, 1), (3, 2), (9, 2)])
def test_no_more_encoder_layers_are_recorded_than_there_are(model, image, asked, recorded):
    with record_attention(model, encoder_layers=asked) as maps:
        model(image)
    assert len(maps.encoder) == recorded and len(maps.decoder) == 3


@torch.no_grad()
def test_decoder_maps_are_the_attention_to_the_image_and_not_among_queries(model, image):
    attention, seen = model.transformer.decoder.layers[-1].multihead_attn, {}
    handle = attention.register_forward_pre_hook(
        lambda module, inputs, options: seen.update(inputs=inputs, options=options), with_kwargs=True
    )
    with record_attention(model) as maps:
        model(image)
    handle.remove()
    _, weights = attention(*seen["inputs"], **(seen["options"] | {"need_weights": True}))
    torch.testing.assert_close(maps.decoder[-1].flatten(2), weights.mean(1))
