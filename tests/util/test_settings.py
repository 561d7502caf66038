"""The table of settings: one row a flag, with bounds and what resuming does with it; settled settings stay."""

import copy

import pytest

from util.arguments import get_args_parser
from util.settings import DETECTOR, RUN, SCHEDULE, SETTINGS, TRAINING, SettledArgs, names_that_touch


def test_the_parser_has_the_tables_names_and_defaults():
    args = vars(get_args_parser().parse_args([]))
    assert args == {name: setting.default for name, setting in SETTINGS.items()}


def test_every_setting_has_one_effect():
    effects = [names_that_touch(effect) for effect in (DETECTOR, TRAINING, SCHEDULE, RUN)]
    assert sorted(name for names in effects for name in names) == sorted(SETTINGS)


def test_the_schedule_follows_the_checkpoint():
    assert set(names_that_touch(SCHEDULE)) == {
        "lr", "lr_backbone", "weight_decay", "lr_schedule", "lr_drop", "warmup_steps",
    }  # fmt: skip


def test_bounds_hold_for_every_value_of_a_list():
    SETTINGS["train_sizes"].check([480, 1])
    with pytest.raises(ValueError, match="--train_sizes must be finite and at least 1, got 0"):
        SETTINGS["train_sizes"].check([480, 0])


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
