"""Settings as keywords: the same values as the parser gives, and the same refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from util.arguments import get_args_parser
from util.flags.keywords import args_of
from util.settings import SETTINGS


def test_nothing_named_is_the_defaults():
    args, parsed = args_of({}), get_args_parser().parse_args([])
    assert {name: getattr(args, name) for name in SETTINGS} == vars(parsed) and args.given == []
    args.train_sizes.append(1)
    assert args_of({}).train_sizes == parsed.train_sizes


def test_values_are_those_of_the_parser():
    given = {
        "lr": 1,
        "epochs": np.int64(7),
        "ema": np.float32(0.5),
        "train_sizes": (64, np.int32(96)),
        "coco_path": Path("a") / "b",
        "no_crop": True,
        "no_aux_loss": True,
        "max_steps": None,
        "frozen_weights": None,
    }
    args = args_of(given)
    words = "--lr 1 --epochs 7 --ema 0.5 --train_sizes 64 96 --coco_path a/b --no_crop --no_aux_loss".split()
    parsed = get_args_parser().parse_args(words)
    for name in SETTINGS:
        one, other = getattr(args, name), getattr(parsed, name)
        assert one == other and type(one) is type(other), name
    assert args.given == [*list(given)[:6], "aux_loss", *list(given)[7:]]
    assert args_of({"no_aux_loss": False}).aux_loss is True and args_of({"aux_loss": False}).aux_loss is False


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"learning_rate": 1}, TypeError, "there is no setting 'learning_rate'"),
        ({"num_querys": 1}, TypeError, "did you mean num_queries"),
        ({"aux_loss": True, "no_aux_loss": True}, TypeError, "one setting"),
        ({"lr": "fast"}, ValueError, "lr must be a number, got 'fast'"),
        ({"lr": -1}, ValueError, "--lr must be finite and at least 0"),
        ({"epochs": 1.5}, ValueError, "epochs must be a whole number"),
        ({"epochs": None}, ValueError, "epochs must be a whole number"),
        ({"no_crop": 1}, ValueError, "no_crop must be true or false"),
        ({"train_sizes": 64}, ValueError, "train_sizes must be a list"),
        ({"recipe": "big"}, ValueError, "recipe must be one of published"),
    ],
)
def test_what_no_flag_takes_is_refused(keywords, error, message):
    with pytest.raises(error, match=message):
        args_of(keywords)
