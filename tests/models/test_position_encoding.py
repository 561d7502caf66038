"""Sine and learned position encodings: values computed by hand, and independence from padding."""

import argparse
import math

import pytest
import torch

from models.position_encoding import PositionEmbeddingLearned, PositionEmbeddingSine, build_position_encoding
from util.nested_tensor import NestedTensor


def features(h: int, w: int, real: tuple[int, int] | None = None, dtype: torch.dtype = torch.float32) -> NestedTensor:
    """Features [1, 3, h, w] of one image, padded outside of `real` = (rows, columns)."""
    rows, columns = real or (h, w)
    mask = torch.ones(1, h, w, dtype=torch.bool)
    mask[:, :rows, :columns] = False
    return NestedTensor(torch.zeros(1, 3, h, w, dtype=dtype), mask)


def expected_sine(row: int, column: int, rows: int, columns: int, feats: int, scale: float) -> list[float]:
    """All 2P channels of one position by definition: y before x, sine on even channels, cosine on odd ones."""
    values = []
    for position, length in ((row + 1, rows), (column + 1, columns)):  # positions count from 1
        phase = position / (length + 1e-6) * scale
        for channel in range(feats):
            angle = phase / 10000 ** (2 * (channel // 2) / feats)
            values.append(math.sin(angle) if channel % 2 == 0 else math.cos(angle))
    return values


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 1), (3, 6)])
def test_sine_values_by_hand(row, column):
    encoding = PositionEmbeddingSine(6, normalize=True)(features(4, 7))
    expected = expected_sine(row, column, 4, 7, 6, 2 * math.pi)
    assert encoding[0, :, row, column].tolist() == pytest.approx(expected, abs=2e-6)


def test_sine_has_the_y_channels_first():
    encoding = PositionEmbeddingSine(8, normalize=True)(features(4, 7))[0]  # [16, 4, 7]
    y, x = encoding[:8], encoding[8:]
    close = {"rtol": 0, "atol": 1e-6}  # a sine may be rounded by its place in a vector register
    torch.testing.assert_close(y, y[:, :, :1].expand_as(y), **close)  # the first half depends only on the row
    torch.testing.assert_close(x, x[:, :1].expand_as(x), **close)  # the second half depends only on the column
    assert (y[:, 0] - y[:, 1]).abs().max() > 0.1 and (x[:, :, 0] - x[:, :, 1]).abs().max() > 0.1


def test_sine_keeps_1e_6_in_the_denominator():
    # In a map of one cell the phase is 2π / (1 + 1e-6), whose sine is -6.28e-6; without the epsilon it is -1.7e-7.
    value = PositionEmbeddingSine(2, normalize=True)(features(1, 1))[0, 0].item()
    assert value == pytest.approx(math.sin(2 * math.pi / (1 + 1e-6)), abs=1e-6)


def test_sine_is_finite_in_rows_and_columns_that_are_all_padding():
    assert PositionEmbeddingSine(8, normalize=True)(features(5, 7, real=(3, 4))).isfinite().all()


def test_sine_counts_only_the_unpadded_part():
    encode = PositionEmbeddingSine(8, normalize=True)
    padded, alone = encode(features(5, 7, real=(3, 4))), encode(features(3, 4))
    torch.testing.assert_close(padded[:, :, :3, :4], alone, rtol=0, atol=1e-6)


def test_sine_without_normalisation_counts_cells():
    encoding = PositionEmbeddingSine(2)(features(4, 7))
    torch.testing.assert_close(encoding[0, 0, :, 0], torch.arange(1.0, 5.0).sin())
    torch.testing.assert_close(encoding[0, 3, 0], torch.arange(1.0, 8.0).cos())


def test_sine_scale_and_temperature_are_used():
    encoding = PositionEmbeddingSine(4, temperature=20, normalize=True, scale=3.0)(features(4, 7))
    angle = 3.0 * 2 / 4 / 20 ** (2 / 4)  # row 1, third channel
    assert encoding[0, 2, 1, 0].item() == pytest.approx(math.sin(angle), abs=1e-5)


def test_sine_scale_without_normalisation_is_refused():
    with pytest.raises(ValueError, match="normalize=True"):
        PositionEmbeddingSine(8, scale=3.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_sine_is_computed_in_float32(dtype):
    assert PositionEmbeddingSine(8, normalize=True)(features(4, 7, dtype=dtype)).dtype == torch.float32


def test_learned_has_the_x_channels_first():
    embedding = PositionEmbeddingLearned(8)
    encoding = embedding(features(4, 7))[0]  # [16, 4, 7]
    assert torch.equal(encoding[:8, 2, 5], embedding.col_embed.weight[5])
    assert torch.equal(encoding[8:, 2, 5], embedding.row_embed.weight[2])


def test_learned_is_the_same_for_every_image_and_gets_gradients():
    embedding = PositionEmbeddingLearned(8)
    batch = NestedTensor(torch.zeros(3, 2, 4, 7), torch.zeros(3, 4, 7, dtype=torch.bool))
    encoding = embedding(batch)
    assert encoding.shape == (3, 16, 4, 7)
    assert torch.equal(encoding[0], encoding[2])
    encoding.sum().backward()
    assert embedding.row_embed.weight.grad[:4].eq(3 * 7).all() and embedding.row_embed.weight.grad[4:].eq(0).all()


def test_learned_starts_uniform_between_0_and_1():
    torch.manual_seed(0)
    for embedding in PositionEmbeddingLearned(64).children():
        assert embedding.num_embeddings == 50
        assert 0 <= embedding.weight.min() < 0.01 and 0.99 < embedding.weight.max() < 1
        assert embedding.weight.mean().item() == pytest.approx(0.5, abs=0.03)


def test_learned_supports_50_rows_and_columns():
    assert PositionEmbeddingLearned(4)(features(50, 50)).shape == (1, 8, 50, 50)


@pytest.mark.parametrize(("h", "w"), [(51, 3), (3, 51)])
def test_learned_beyond_50_is_an_error_with_advice(h, w):
    with pytest.raises(ValueError, match=rf"{h} x {w}.*50 x 50.*--max_size.*--position_embedding sine"):
        PositionEmbeddingLearned(4)(features(h, w))


def build(name: str, hidden_dim: int = 32, **ours: int) -> torch.nn.Module:
    return build_position_encoding(argparse.Namespace(position_embedding=name, hidden_dim=hidden_dim, **ours))


@pytest.mark.parametrize("name", ["sine", "v2"])
def test_the_sine_encoding_is_built_normalised_to_two_pi(name):
    encoding = build(name)
    assert (encoding.num_pos_feats, encoding.normalize, encoding.temperature) == (16, True, 10000)
    assert encoding.scale == 2 * math.pi


def test_the_temperature_of_the_settings_is_used():
    assert build("sine", pos_temperature=20).temperature == 20


@pytest.mark.parametrize("name", ["learned", "v3"])
def test_the_learned_encoding_is_built_half_as_wide_as_the_transformer(name):
    assert build(name).row_embed.embedding_dim == 16


def test_an_unknown_encoding_is_refused():
    with pytest.raises(ValueError, match="--position_embedding 'fourier'"):
        build("fourier")


def test_a_width_that_cannot_be_divided_between_the_axes_is_refused():
    with pytest.raises(ValueError, match="--hidden_dim 30"):
        build("sine", hidden_dim=30)
    with pytest.raises(ValueError, match="--hidden_dim 33"):
        build("learned", hidden_dim=33)
