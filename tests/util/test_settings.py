"""The table of settings: one row a flag, with bounds and what resuming does with it; settled settings stay."""

import copy

import pytest

from util.arguments import get_args_parser
from util.settings import DETECTOR, INPUT, RUN, SCHEDULE, SETTINGS, TRAINING, SettledArgs, names_that_touch


def test_the_parser_has_the_tables_names_and_defaults():
    args = vars(get_args_parser().parse_args([]))
    assert args == {name: setting.default for name, setting in SETTINGS.items()}


def test_the_help_names_each_default_once_and_none_that_says_nothing():
    text = " ".join(get_args_parser().format_help().split())
    for part in ("(default: 0.0001)", "(default: 480 512 544", "(default: sine)"):
        assert part in text
    for part in ("None", ")", "False", "True", "["):
        assert f"(default: {part}" not in text
    assert "default: --coco_path (default" not in text


def test_every_setting_has_one_effect():
    effects = [names_that_touch(effect) for effect in (DETECTOR, INPUT, TRAINING, SCHEDULE, RUN)]
    assert sorted(name for names in effects for name in names) == sorted(SETTINGS)


def test_the_schedule_follows_the_checkpoint():
    assert set(names_that_touch(SCHEDULE)) == {
        "lr", "lr_backbone", "weight_decay", "lr_schedule", "lr_drop", "warmup_steps",
    }  # fmt: skip


def test_bounds_hold_for_every_value_of_a_list():
    SETTINGS["train_sizes"].check([480, 1])
    with pytest.raises(ValueError, match="--train_sizes must be finite and at least 1, got 0"):
        SETTINGS["train_sizes"].check([480, 0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("val_size", "800"), ("val_size", 10**9), ("val_size", None), ("val_size", [800]), ("val_size", True),
        ("nheads", -8), ("nheads", 8.0), ("enc_layers", 10**7), ("dropout", float("nan")), ("dropout", "0.1"),
        ("dilation", 1), ("backbone", 50), ("position_embedding", "v4"), ("train_sizes", 480), ("train_sizes", []),
        ("train_sizes", [480, "512"]), ("pos_temperature", float("inf")), ("hidden_dim", 10**9),
    ],
)  # fmt: skip
def test_a_saved_value_that_no_flag_could_set_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be "):
        SETTINGS[name].check_saved(value)


def test_every_default_may_be_saved():
    for setting in SETTINGS.values():
        setting.check_saved(setting.default)
    SETTINGS["train_sizes"].check_saved((480, 512))
    SETTINGS["dropout"].check_saved(0)


def test_settings_are_spelled_as_flags():
    spelled = [
        SETTINGS[n].spell(v) for n, v in {"nheads": 4, "dilation": True, "aux_loss": False, "masks": False}.items()
    ]
    assert spelled == ["--nheads 4", "--dilation", "--no_aux_loss", "without --masks"]
    assert SETTINGS["train_sizes"].spell((64, 96)) == "--train_sizes 64 96"


def test_settled_settings_cannot_change():
    args = SettledArgs.of(get_args_parser().parse_args(["--epochs", "7"]))
    with pytest.raises(AttributeError, match="args.epochs cannot be set"):
        args.epochs = 8
    assert copy.deepcopy(args).epochs == args.epochs == 7


def test_a_replaced_copy_leaves_the_original():
    args = SettledArgs.of(get_args_parser().parse_args([]))
    other = args.replace(num_classes=3)
    assert (other.num_classes, args.num_classes, other.epochs) == (3, None, args.epochs)
    with pytest.raises(AttributeError):
        other.num_classes = 4
