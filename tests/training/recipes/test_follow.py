"""What a recipe sets in a run: flags that could be typed, below those of the user, and resumed as ordinary settings."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

import main
from datasets.augment.rare_classes import repeat_factors
from datasets.augment.repeats import Repeats
from datasets.shapes import write_shapes
from tests.helpers.runs import TINY, flags, signal_at
from tests.training.test_resume import assert_same_run
from training.recipes.follow import follow_recipe
from training.recipes.tables import SHIPPED, SMALL_NETWORK
from util.arguments import get_args_parser, given_flags
from util.checkpoint import load_checkpoint
from util.settings import DETECTOR, SETTINGS, names_that_touch

SMALL = ["--train_sizes", "64", "--val_size", "64", "--max_size", "64", "--num_workers", "0", "--device", "cpu"]


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty training pictures."""
    folder = tmp_path_factory.mktemp("twenty")
    write_shapes(folder, train=20, val=2, size=64, seed=4)
    return folder


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(parents=[get_args_parser()])
    args = parser.parse_args(words)
    args.given = given_flags(parser, words)
    return args


def said_flags(said: str) -> list[str]:
    """The flags after "is short for"."""
    line = next(line for line in said.splitlines() if "is short for: " in line)
    return shlex.split(line.split("is short for: ")[1])


def test_what_is_said_can_be_typed_and_gives_the_same_settings(twenty, capsys):
    args = parse("--recipe", "small", "--coco_path", str(twenty))
    follow_recipe(args, {})
    typed = parse("--coco_path", str(twenty), *said_flags(capsys.readouterr().out))
    assert Path(typed.init_from).resolve() == SHIPPED
    for name in SETTINGS:
        if name not in ("recipe", "init_from"):
            assert getattr(typed, name) == getattr(args, name), name
    assert set(typed.given) | {"recipe"} == set(args.given)


def test_a_run_by_recipe_is_the_run_of_the_typed_flags(shapes, tmp_path, capsys):
    run = ["--coco_path", str(shapes), *SMALL, "--max_steps", "2", "--batch_size", "4"]
    assert main.run([*run, "--recipe", "small", "--output_dir", str(tmp_path / "recipe")]) == 0
    typed = said_flags(capsys.readouterr().out)
    assert main.run([*run, *typed, "--output_dir", str(tmp_path / "typed")]) == 0
    assert_same_run(tmp_path / "recipe", tmp_path / "typed")


def test_flags_of_the_user_win(shapes, capsys):
    named = ["--lr", "0.01", "--num_queries", "9", "--epochs", "7", "--batch_size", "2", "--eos_coef", "0.1"]
    args = parse("--recipe", "small", "--coco_path", str(shapes), *named)
    follow_recipe(args, {})
    assert (args.lr, args.num_queries, args.epochs, args.batch_size, args.eos_coef) == (0.01, 9, 7, 2, 0.1)
    assert not set(said_flags(capsys.readouterr().out)) & {"--lr", "--num_queries", "--epochs", "--batch_size"}


def test_published_sets_nothing_and_reads_nothing(shapes, capsys):
    assert main.run(flags(shapes, "--max_steps", "1", "--epochs", "1", "--recipe", "published")) == 0
    assert "is short for" not in capsys.readouterr().out


def test_auto_says_why_and_what(shapes, capsys):
    follow_recipe(parse("--recipe", "auto", "--coco_path", str(shapes)), {})
    said = capsys.readouterr().out
    assert "--recipe auto chooses small: 8 pictures of 3 classes can only be learned by heart" in said
    assert "--recipe small is short for: " in said


def test_another_network_starts_from_scratch_and_keeps_the_users_values(shapes, capsys):
    args = parse("--recipe", "small", *flags(shapes))
    follow_recipe(args, {})
    assert args.init_from == "" and (args.hidden_dim, args.backbone_norm, args.enc_layers) == (16, "gn", 1)
    assert "has another network than --enc_layers 1" in capsys.readouterr().out


def test_none_starts_from_scratch_with_the_network_of_the_recipe(shapes, tmp_path, capsys):
    words = ["--recipe", "small", "--init_from", "none", "--coco_path", str(shapes), *SMALL, "--max_steps", "1"]
    assert main.run([*words, "--output_dir", str(tmp_path)]) == 0
    saved = load_checkpoint(tmp_path / "checkpoint.pth")["args"]
    assert {name: saved[name] for name in SMALL_NETWORK} == SMALL_NETWORK and saved["init_from"] == ""
    assert "fresh start from the weights" not in capsys.readouterr().out


def test_the_network_of_the_recipe_is_that_of_the_shipped_detector():
    saved = load_checkpoint(SHIPPED)["args"]
    assert {name: saved[name] for name in SMALL_NETWORK} == SMALL_NETWORK
    assert set(SMALL_NETWORK) == set(names_that_touch(DETECTOR)) - {"num_queries"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--recipe", "small", "--masks"], "not for --masks"),
        (["--recipe", "auto", "--dataset_file", "coco_panoptic"], "not for --dataset_file coco_panoptic"),
        (["--recipe", "finetune", "--init_from", "none"], "--init_from none forbids it"),
    ],
)
def test_runs_that_no_recipe_is_for_are_refused(shapes, capsys, words, sentence):
    assert main.run(["--coco_path", str(shapes), *words]) == 1
    assert sentence in capsys.readouterr().err


def test_an_early_end_is_pointed_out(twenty, capsys):
    follow_recipe(parse("--recipe", "small", "--coco_path", str(twenty), "--epochs", "5"), {})
    assert "the run ends after 10 steps, far fewer than the" in capsys.readouterr().out
    follow_recipe(parse("--recipe", "small", "--coco_path", str(twenty), "--epochs", "300"), {})
    assert "far fewer" not in capsys.readouterr().out


def test_counts_include_the_images_that_an_epoch_repeats(twenty, capsys):
    words = ["--recipe", "small", "--coco_path", str(twenty), "--batch_size", "1", "--epochs", "300"]
    settled = [parse(*words, *more) for more in ([], ["--repeat_threshold", "1"])]
    longer = [len(Repeats(repeat_factors(follow_recipe(args, {}), args.repeat_threshold))) for args in settled]
    assert longer[1] > longer[0] == 20
    assert [args.warmup_steps for args in settled] == longer
    assert [1 / (1 - args.ema) for args in settled] == pytest.approx([300 * images / 20 for images in longer], rel=0.05)


def test_a_resumed_run_goes_on_to_the_bit_also_without_naming_the_recipe(shapes, tmp_path, monkeypatch):
    tiny = [word for word in TINY if word not in ("--batch_size", "4")]
    words = ["--recipe", "small", *tiny, "--coco_path", str(shapes), "--max_steps", "4"]
    assert main.run([*words, "--output_dir", str(tmp_path / "whole")]) == 0
    for name, again in {"same": words, "bare": ["--coco_path", str(shapes), "--num_workers", "0"]}.items():
        with monkeypatch.context() as interrupted:
            signal_at(interrupted, 3, 15)
            assert main.run([*words, "--output_dir", str(tmp_path / name)]) == 0
        assert main.run([*again, "--output_dir", str(tmp_path / name), "--resume", "auto"]) == 0
        assert_same_run(tmp_path / "whole", tmp_path / name)
        assert load_checkpoint(tmp_path / name / "checkpoint.pth")["args"]["recipe"] == "small"


def test_another_recipe_than_the_checkpoints_is_refused(shapes, tmp_path, capsys):
    assert main.run(flags(shapes, "--max_steps", "1", "--output_dir", str(tmp_path))) == 0
    again = flags(shapes, "--max_steps", "2", "--output_dir", str(tmp_path), "--resume", "auto", "--recipe", "small")
    assert main.run(again) == 1
    assert "--recipe small contradicts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "other_size", "size", "sentence"),
    [
        ("small", "resnet50", "tiny", "too high for other.pth, which has --backbone resnet50: pass --recipe finetune"),
        ("finetune", "tiny", "resnet50", "too low for other.pth, which has --backbone tiny: pass --recipe small"),
    ],
)
def test_a_recipe_for_detectors_of_another_size_is_said_to_have_the_wrong_rates(
    shapes, capsys, recipe, other_size, size, sentence
):
    words = ["--recipe", recipe, "--coco_path", str(shapes), "--init_from", "other.pth"]
    follow_recipe(parse(*words), {"model": {}, "args": {"backbone": other_size}})
    assert sentence in capsys.readouterr().out
    follow_recipe(parse(*words), {"model": {}, "args": {"backbone": size}})
    assert "learning rates are too" not in capsys.readouterr().out
