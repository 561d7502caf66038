"""What is saved can be continued from: a trained epoch outlives its evaluation, and NaN replaces nothing."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import engine
import main
from models import build_model
from tests.helpers.runs import flags, parse
from tools.reliability.tiny_run import differences
from training.diagnosis.saved_state import find_unusable_state
from util.checkpoint import load_checkpoint

RUN = ["--batch_size", "4", "--dropout", "0.1", "--epochs", "2"]  # two steps an epoch


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)


@pytest.fixture(scope="module")
def first_epoch(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first")
    assert main.run(flags(shapes, *RUN, "--epochs", "1", "--eval_every", "9", "--output_dir", str(out))) == 0
    return out


@pytest.mark.parametrize("fault", [OSError("a picture is damaged"), ValueError("a mask is too wide"), MemoryError()])
def test_a_failed_evaluation_costs_no_training(shapes, tmp_path, monkeypatch, capsys, fault):
    whole, halves = (["--output_dir", str(tmp_path / name), "--resume", "auto"] for name in ("whole", "halves"))
    assert main.run(flags(shapes, *RUN, *whole)) == 0

    def fail(*args, **more):
        raise fault

    monkeypatch.setattr("training.validation.evaluate", fail)
    assert main.run(flags(shapes, *RUN, *halves)) == 1
    saved = load_checkpoint(tmp_path / "halves" / "checkpoint.pth")
    assert (saved["epoch"], saved["progress"]["step"]) == (-1, 2) and "train_stats" in saved["progress"]
    monkeypatch.undo()
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)
    capsys.readouterr()
    assert main.run(flags(shapes, *RUN, *halves)) == 0
    said = capsys.readouterr().out
    assert said.index("Test:") < said.index("Epoch: [1]") and "Epoch: [0]" not in said
    assert differences(tmp_path / "halves", tmp_path / "whole") == []


def test_a_damaged_validation_picture_is_met_after_the_epoch_was_saved(shapes, tmp_path, capsys):
    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    picture = max((data / "val2017").iterdir())
    size = Image.open(picture).size
    picture.write_bytes(picture.read_bytes()[:-200])
    out = ["--output_dir", str(tmp_path / "run"), "--epochs", "1", "--resume", "auto"]
    assert main.run(flags(data, *RUN, *out)) == 1
    assert picture.name in capsys.readouterr().err
    Image.new("RGB", size).save(picture)
    assert main.run(flags(data, *RUN, *out)) == 0
    said = capsys.readouterr().out
    assert "Epoch: [0]" not in said and "Test:" in said


def test_a_trained_epoch_is_kept_when_settings_changed_before_its_evaluation(shapes, tmp_path, monkeypatch, capsys):
    def fail(*args, **more):
        raise ValueError("a mask is too wide")

    out = ["--output_dir", str(tmp_path), "--resume", "auto"]
    with monkeypatch.context() as patch:
        patch.setattr("training.validation.evaluate", fail)
        assert main.run(flags(shapes, *RUN, *out)) == 1
    capsys.readouterr()
    assert main.run(flags(shapes, *RUN, *out, "--batch_size", "2")) == 0
    said = capsys.readouterr().out
    assert "--batch_size is 2, it was 4" in said and "Epoch: [0]" not in said
    assert load_checkpoint(tmp_path / "checkpoint.pth")["step"] == 2 + 4


def evaluated_never(shapes: Path, out: Path, *more: str) -> int:
    return main.run(flags(shapes, *RUN, "--output_dir", str(out), "--resume", "auto", "--eval_every", "9", *more))


@pytest.mark.parametrize("epochs", ["3", "2"], ids=["no evaluation is due", "an evaluation is due"])
def test_weights_that_are_not_finite_replace_nothing(shapes, first_epoch, tmp_path, monkeypatch, capsys, epochs):
    out = Path(shutil.copytree(first_epoch, tmp_path / "run"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    seen, step = [], torch.optim.AdamW.step

    def spoil(optimizer, *args):
        step(optimizer, *args)
        seen.append(None)
        if len(seen) == 2:  # the epoch's last, so that no loss of a later step shows it
            optimizer.param_groups[0]["params"][3].data.view(-1)[0] = torch.nan

    monkeypatch.setattr(torch.optim.AdamW, "step", spoil)
    assert evaluated_never(shapes, out, "--epochs", epochs) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: after 4 steps, ") and "is not finite (1 NaN of" in error
    assert "checkpoints are unchanged" in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_rate_without_measure_replaces_nothing_where_a_signal_saves(shapes, first_epoch, tmp_path, monkeypatch):
    out = Path(shutil.copytree(first_epoch, tmp_path / "run"))
    before, check = (out / "checkpoint.pth").read_bytes(), engine.check_targets

    def ask(*args):
        os.kill(os.getpid(), signal.SIGUSR1)
        return check(*args)

    monkeypatch.setattr(engine, "check_targets", ask)
    assert evaluated_never(shapes, out, "--lr", "1e38") == 1
    assert (out / "checkpoint.pth").read_bytes() == before


@pytest.fixture
def model_and_optimizer(shapes: Path) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    args = parse(shapes, "--num_classes", "4")
    model = build_model(args)[0]
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return model, optimizer


def bias(model: torch.nn.Module) -> torch.Tensor:
    return model.class_embed.bias


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda model, _: bias(model).data.fill_(torch.inf), "class_embed.bias is not finite (5 infinite of 5 values)"),
        (
            lambda model, optimizer: optimizer.state[bias(model)]["exp_avg_sq"].fill_(torch.inf),
            "the optimizer's exp_avg_sq of class_embed.bias is not finite",
        ),
        (
            lambda model, _: [p.data.fill_(torch.nan) for p in model.class_embed.parameters()],
            "class_embed.weight is not finite (80 NaN of 80 values), nor are 1 of the",
        ),
        (lambda model, _: [p.data.fill_(1e38) for p in model.parameters()], "the weights, up to 1e+38, give outputs"),
    ],
)
def test_what_cannot_be_continued_from_is_named(model_and_optimizer, spoil: Callable, said: str):
    model, optimizer = model_and_optimizer
    assert find_unusable_state(model, optimizer) == ""
    spoil(model, optimizer)
    assert said in find_unusable_state(model, optimizer)


def test_the_check_changes_nothing(model_and_optimizer):
    model, optimizer = model_and_optimizer
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    find_unusable_state(model, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn) and all(module.training for module in model.modules())
    assert all(parameter.grad is not None for parameter in model.parameters())
