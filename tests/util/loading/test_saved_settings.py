"""Settings in a checkpoint: checked as the command line's are, and against the weights before anything is built."""

from __future__ import annotations

import math

import pytest
import torch

from models.load import load_detector
from models.resnet import SPECS
from util.errors import CheckpointError
from util.files import plain
from util.loading.saved_settings import infer_settings, read_settings
from util.settings import DETECTOR, SETTINGS, names_that_touch


def weights_of(width=16, queries=6, layers=(1, 2), feedforward=32, classes=4) -> dict[str, torch.Tensor]:
    """The part of a detector's weights whose shapes are read."""
    encoder, decoder = layers
    weights = {"query_embed.weight": torch.zeros(queries, width), "class_embed.weight": torch.zeros(classes, width)}
    for kind, count in (("encoder", encoder), ("decoder", decoder)):
        for number in range(count):
            prefix = f"transformer.{kind}.layers.{number}"
            weights[f"{prefix}.linear1.weight"] = torch.zeros(feedforward, width)
            weights[f"{prefix}.linear2.weight"] = torch.zeros(width, feedforward)
            for attention in ("self_attn", "multihead_attn")[: 1 + (kind == "decoder")]:
                weights[f"{prefix}.{attention}.in_proj_weight"] = torch.zeros(3 * width, width)
                weights[f"{prefix}.{attention}.out_proj.weight"] = torch.zeros(width, width)
    return weights


SMALL = {"hidden_dim": 16, "enc_layers": 1, "dec_layers": 2, "dim_feedforward": 32, "num_queries": 6, "nheads": 2}


def read(weights=None, **settings):
    checkpoint = {"model": weights or weights_of(), "args": SMALL | settings}
    return read_settings(checkpoint, "run.pth", [*names_that_touch(DETECTOR), "train_sizes"])


def test_what_a_file_lacks_is_what_its_weights_say():
    found = read_settings({"model": weights_of(), "args": {"lr": 1e-4}}, "run.pth", names_that_touch(DETECTOR))
    assert found == {name: SMALL[name] for name in SMALL if name != "nheads"} | {
        "position_embedding": "sine",
        "pre_norm": False,
    }


def test_a_file_of_the_published_code_has_the_published_value_of_our_settings():
    published = {"backbone": "resnet50", "dilation": False, "position_embedding": "sine", "pre_norm": False}
    found = read(**published)
    assert (found["pos_temperature"], found["backbone_norm"]) == (10000, "frozen_bn")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_dim": "16"}, "hidden_dim must be a whole number, got '16'"),
        ({"hidden_dim": True}, "hidden_dim must be a whole number, got True"),
        ({"hidden_dim": [16]}, "hidden_dim must be a whole number"),
        ({"hidden_dim": None}, "hidden_dim must be a whole number, got None"),
        ({"hidden_dim": 16.0}, "hidden_dim must be a whole number"),
        ({"nheads": -8}, "--nheads must be .*at least 1, got -8"),
        ({"pos_temperature": float("inf")}, "--pos_temperature must be finite"),
        ({"pos_temperature": float("nan")}, "--pos_temperature must be finite"),
        ({"dilation": 1}, "dilation must be true or false, got 1"),
        ({"backbone_norm": "x" * 10**6}, "backbone_norm must be one of frozen_bn, bn, gn, got 'xxx.{0,60}$"),
        ({"hidden_dim": 10**5000}, "--hidden_dim must be at most 65,536, got a number of 16,610 bits"),
        ({"train_sizes": [64] * 10**5}, "train_sizes must have at most 1000 values, got 100,000"),
        ({"train_sizes": [10**5000]}, "--train_sizes must be at most .*, got a number of 16,610 bits"),
        ({"backbone": "x" * 10**5}, "--backbone xxx.* is unknown: use resnet18, .* or tiny"),
        ({"pos_temperature": 10**400}, "--pos_temperature must be at most .*, got a number of 1,329 bits"),
        ({"train_sizes": [math.inf]}, "train_sizes must be a list, each a whole number, got .inf."),
        ({"position_embedding": 7}, "position_embedding must be a text, got 7"),
        ({"enc_layers": 10**7}, "--enc_layers must be at most 1,000"),
        ({"hidden_dim": 10**9}, "--hidden_dim must be at most 65,536"),
        ({"hidden_dim": 32}, "settings .* say --hidden_dim 32, its weights --hidden_dim 16"),
    ],
    ids=[f"case{number}" for number in range(20)],
)
def test_a_setting_that_no_command_line_sets_is_refused_by_name(settings, message):
    with pytest.raises(CheckpointError, match=message) as refusal:
        read(**settings)
    assert "run.pth" in str(refusal.value) and len(str(refusal.value)) < 400


def forged(**sizes):
    """Names and widths of a large detector around almost no weights."""
    weights = weights_of(width=4, feedforward=4, **sizes)
    weights["query_embed.weight"] = torch.zeros(6, 65536)
    return weights


@pytest.mark.parametrize("layers", [(1, 2), (0, 1), (900, 900)])
def test_widths_without_the_weights_for_them_are_refused_before_anything_is_built(layers):
    weights = forged(layers=layers)
    settings = {"hidden_dim": 65536, "enc_layers": layers[0], "dec_layers": layers[1], "dim_feedforward": 4}
    with pytest.raises(CheckpointError, match=r"run.pth is damaged: a detector with .* width 65536 .*the file has"):
        read(weights, **settings)
    with pytest.raises(CheckpointError, match="damaged"):
        infer_settings({"model": weights | {"backbone.0.body.layer3.5.conv1.weight": torch.zeros(1)}}, "run.pth")


def test_a_class_head_of_many_rows_but_no_width_is_refused():
    with pytest.raises(CheckpointError, match="10,000,006 rows of queries and classes"):
        read(weights_of() | {"class_embed.weight": torch.zeros(1, 1).expand(10**7, 1)})


def test_a_detector_is_not_built_from_forged_widths(monkeypatch):
    monkeypatch.setattr("models.load.build_model", lambda args: pytest.fail("it was built"))
    with pytest.raises(CheckpointError, match="is damaged"):
        load_detector({"model": forged(layers=(6, 6)), "args": plain({})}, "cpu")


def test_sizes_that_exclude_each_other_are_refused():
    with pytest.raises(CheckpointError, match="run.pth .*val_size 800 exceeds max_size 640"):
        sizes = {"val_size": 800, "max_size": 640}
        read_settings({"model": weights_of(), "args": SMALL | sizes}, "run.pth", [*SMALL, *sizes])


def test_the_known_backbones_are_those_that_can_be_built():
    assert SETTINGS["backbone"].known == tuple(SPECS)
    for name in SPECS:
        assert read(backbone=name)["backbone"] == name
