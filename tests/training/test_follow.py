"""Settings that come from the checkpoint a run starts from, for every use of one."""

from __future__ import annotations

import argparse

import pytest

from models import build_model
from tests.helpers.runs import parse
from training.follow import EVALUATE, FREEZE, INIT, RESUME, follow_checkpoint
from util.arguments import get_args_parser
from util.errors import CheckpointError
from util.files import plain

OTHER = "--pos_temperature 20 --dilation --pre_norm --val_size 48 --max_size 60 --dropout 0.3 --eos_coef 0.2 --lr 3e-4"


def checkpoint_of(*more: str, optimizer: bool = True) -> dict:
    """What a run with these settings would save, as far as its settings and weights go."""
    args = parse("data", *more)
    args.num_classes = 3
    model = build_model(args)[0]
    content = {"model": model.state_dict(), "args": plain(args)}
    return content | ({"optimizer": {}, "lr_scheduler": {}, "epoch": 0} if optimizer else {})


@pytest.fixture(scope="module")
def saved() -> dict:
    return checkpoint_of(*OTHER.split())


def started(*words: str) -> argparse.Namespace:
    args = get_args_parser().parse_args(list(words))
    args.given = [word.removeprefix("--").removeprefix("no_") for word in words if word.startswith("--")]
    return args


NETWORK = {
    "backbone": "tiny", "hidden_dim": 16, "nheads": 2, "dim_feedforward": 32, "enc_layers": 1, "dec_layers": 2,
    "num_queries": 6, "pos_temperature": 20, "dilation": True, "pre_norm": True, "backbone_norm": "gn",
    "val_size": 48, "max_size": 60, "train_sizes": [64], "dropout": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("use", [RESUME, EVALUATE, INIT, FREEZE])
def test_what_is_not_named_comes_from_the_file_and_is_said_in_one_line(saved, use, capsys):
    args = started()
    follow_checkpoint(args, saved, "old.pth", use)
    train_sizes = args.train_sizes if use == EVALUATE else [64]  # an evaluation does not look at them
    assert {name: getattr(args, name) for name in NETWORK} == NETWORK | {"train_sizes": train_sizes}
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "old.pth" in line)
    assert "from old.pth: " in line and "--nheads 2" in line and "--dilation" in line and "--val_size 48" in line
    assert args.eos_coef == (0.2 if use in (RESUME, EVALUATE) else 0.1), "losses belong to the run"
    assert args.lr == (3e-4 if use == RESUME else 1e-4), "the schedule belongs to the training"
    assert (args.epochs, args.batch_size) == (300, 2), "how a run is carried out never comes from a file"


CONTRADICTIONS = {
    "--nheads 4": "--nheads 4 contradicts old.pth, which was made with --nheads 2: leave the flag out",
    "--pos_temperature 10000": "--pos_temperature 10000 contradicts old.pth, .* --pos_temperature 20: leave",
    "--backbone resnet18": "--backbone resnet18 contradicts .* --backbone tiny",
    "--enc_layers 2 --nheads 4": "--enc_layers 2 and --nheads 4 contradict .*with --enc_layers 1 and with --nheads 2",
    "--masks": "--masks contradicts old.pth, which is a model without masks",
}


@pytest.mark.parametrize("use", [RESUME, EVALUATE, INIT])
@pytest.mark.parametrize("flags", CONTRADICTIONS)
def test_another_network_is_refused_by_name_with_the_files_value(saved, flags, use):
    with pytest.raises(ValueError, match=CONTRADICTIONS[flags]):
        follow_checkpoint(started(*flags.split()), saved, "old.pth", use)


@pytest.mark.parametrize("use", [RESUME, EVALUATE, INIT, FREEZE])
def test_a_switch_that_the_file_does_not_have_is_refused(use):
    with pytest.raises(ValueError, match="--dilation contradicts old.pth, which was made without --dilation"):
        follow_checkpoint(started("--dilation"), checkpoint_of(), "old.pth", use)


def test_the_files_own_values_may_be_named(saved):
    words = [word for word in OTHER.split() if word != "0.3" and word != "--dropout"]
    for use in (RESUME, EVALUATE, INIT, FREEZE):
        follow_checkpoint(started(*words, "--nheads", "2"), saved, "old.pth", use)


def test_queries_may_change_where_only_weights_are_taken(saved):
    args = started("--num_queries", "9")
    follow_checkpoint(args, saved, "old.pth", INIT)
    assert args.num_queries == 9
    for use in (RESUME, EVALUATE, FREEZE):
        with pytest.raises(ValueError, match="--num_queries 9 contradicts"):
            follow_checkpoint(started("--num_queries", "9"), saved, "old.pth", use)


def test_other_settings_may_differ_and_a_resumed_run_says_so(saved, capsys):
    words = "--dropout 0.2 --val_size 56 --eos_coef 0.5 --lr 1e-3".split()
    for use, warned in ((RESUME, True), (EVALUATE, False), (INIT, False)):
        args = started(*words)
        follow_checkpoint(args, saved, "old.pth", use)
        assert (args.dropout, args.val_size, args.eos_coef, args.lr) == (0.2, 56, 0.5, 1e-3)
        said = capsys.readouterr().out
        assert ("--dropout 0.2 (was 0.3)" in said and "--lr 0.001 (was 0.0003)" in said) == warned


def test_without_a_list_of_named_settings_those_other_than_the_defaults_count(saved):
    args = get_args_parser().parse_args(["--val_size", "56"])
    follow_checkpoint(args, saved, "old.pth", EVALUATE)
    assert (args.val_size, args.nheads) == (56, 2)
    with pytest.raises(ValueError, match="--nheads 4 contradicts"):
        follow_checkpoint(get_args_parser().parse_args(["--nheads", "4"]), saved, "old.pth", EVALUATE)


def test_masks_come_from_the_weights():
    masks = checkpoint_of("--masks", "--hidden_dim", "128", "--nheads", "8")
    masks["args"]["masks"] = False
    for use in (RESUME, EVALUATE, INIT):
        args = started()
        follow_checkpoint(args, masks, "old.pth", use)
        assert args.masks
    args = started("--masks")
    follow_checkpoint(args, masks, "old.pth", FREEZE)
    assert args.masks and args.hidden_dim == 128


def test_masks_come_from_weights_alone():
    model = checkpoint_of("--masks", "--hidden_dim", "128", "--nheads", "8")["model"]
    for use in (RESUME, EVALUATE, INIT):
        args = started("--backbone", "tiny")
        follow_checkpoint(args, {"model": model}, "old.pth", use)
        assert args.masks
    boxes = {"model": checkpoint_of()["model"]}
    with pytest.raises(ValueError, match="--masks contradicts old.pth"):
        follow_checkpoint(started("--masks"), boxes, "old.pth", EVALUATE)


def test_weights_alone_tell_the_settings_of_a_published_detector(capsys):
    alone = {"model": checkpoint_of("--backbone", "resnet18", "--backbone_norm", "frozen_bn", "--nheads", "8")["model"]}
    args = started("--nheads", "8", "--dilation")
    follow_checkpoint(args, alone, "detr-r18.pth", EVALUATE)
    assert (args.backbone, args.hidden_dim, args.num_queries, args.dilation) == ("resnet18", 16, 6, True)
    with pytest.raises(ValueError, match="--enc_layers 3 contradicts detr-r18.pth"):
        follow_checkpoint(started("--enc_layers", "3"), alone, "detr-r18.pth", EVALUATE)


def test_other_weights_alone_leave_the_settings_to_the_user(saved, capsys):
    args = started("--backbone", "tiny")
    follow_checkpoint(args, {"model": saved["model"]}, "weights.pth", INIT)
    assert args.hidden_dim == 256 and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("val_size", "800", "val_size must be a whole number, got '800'"),
        ("val_size", 10**9, "--val_size must be at most 65,536, got 1000000000"),
        ("nheads", -8, "--nheads must be .*at least 1, got -8"),
        ("enc_layers", 5, "settings .*say --enc_layers 5, its weights --enc_layers 1"),
        ("enc_layers", 10**7, "--enc_layers must be at most 1,000"),
        ("dropout", float("nan"), "--dropout must be in"),
        ("backbone_norm", "ln", "backbone_norm must be one of frozen_bn, bn, gn"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_the_file(saved, name, value, message):
    broken = saved | {"args": saved["args"] | {name: value}}
    with pytest.raises(CheckpointError, match=f"old.pth .*{message}"):
        follow_checkpoint(started(), broken, "old.pth", EVALUATE)


def test_a_file_without_weights_is_refused():
    with pytest.raises(CheckpointError, match="old.pth has no weights"):
        follow_checkpoint(started(), {"args": {}, "model": {}}, "old.pth", INIT)


def test_an_absurd_width_is_refused_before_anything_is_built(saved):
    weights = {name: value for name, value in saved["model"].items() if "query_embed" not in name}
    broken = saved | {"model": weights, "args": saved["args"] | {"dim_feedforward": 2**20, "hidden_dim": 2**16}}
    with pytest.raises(CheckpointError, match="old.pth is not a DETR"):
        follow_checkpoint(started(), broken, "old.pth", EVALUATE)
