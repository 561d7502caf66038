"""The state of a training: what is saved, restored, kept, reported and refused."""

from __future__ import annotations

import argparse
import math
from typing import Any

import pytest
import torch

from training.optim import build_lr_scheduler
from training.state import Position, TrainingState, check_same_position
from util.errors import CheckpointError
from util.loading.checkpoint_entries import ENTRIES
from util.rng import get_rng_state


def parts(**options: Any) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.StepLR]:
    """An optimizer that has taken a step, and its schedule."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3, **options)
    parameter.grad = torch.ones(2)
    optimizer.step()
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 200)


def state(**entries: Any) -> dict[str, Any]:
    """A checkpoint after epoch 0 of four steps."""
    optimizer, schedule = parts()
    made = {"optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict(), "epoch": 0, "step": 4}
    return made | {"args": {"seed": 0, "batch_size": 2}, "rng": [get_rng_state()]} | entries


def restore(checkpoint: dict[str, Any], optimizer=None, schedule=None, **settings: Any) -> Position:
    if optimizer is None:
        optimizer, schedule = parts()
    args = {"resume": "old.pth", "device": "cpu", "epochs": 2, "max_steps": None, "start_epoch": 0}
    args |= {"batch_size": 2, "seed": 0, "lr_schedule": "cosine", "lr": 1e-3, "lr_backbone": 1e-3}
    args = argparse.Namespace(**(args | settings))
    training = TrainingState(args, torch.nn.Linear(1, 1), optimizer, schedule, steps_per_epoch=4, data="pictures")
    training.load_state_dict(checkpoint)
    return training.position


def test_every_entry_that_is_saved_has_a_type_that_loading_checks():
    optimizer, schedule = parts()
    args = argparse.Namespace(start_epoch=0, device="cpu")
    training = TrainingState(args, torch.nn.Linear(1, 1), optimizer, schedule, steps_per_epoch=4, data="pictures")
    saved = training.state_dict() | {"record": {}}
    assert set(saved) <= set(ENTRIES)
    assert all(ENTRIES[name][0](value) for name, value in saved.items() if value is not None)


def test_the_best_score_so_far_comes_back():
    assert restore(state(best_score=0.4)).best_score == 0.4
    assert restore(state()).best_score == -1.0


def test_what_decides_the_last_bits_is_compared(capsys):
    optimizer, schedule = parts()
    args = argparse.Namespace(start_epoch=0, device="cpu")
    training = TrainingState(args, torch.nn.Linear(1, 1), optimizer, schedule, steps_per_epoch=4, data="pictures")
    versions = training.state_dict()["versions"]
    restore(state(versions=versions))
    restore(state(versions={"torch": versions["torch"]}))  # of earlier files
    assert "last bits" not in capsys.readouterr().out
    restore(state(versions=versions | {"threads": "7", "processor": "SVE", "torch": "1.0"}))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "last bits" in line)
    assert "threads" in line and "7" in line and "SVE" in line and "1.0" in line


def test_other_data_are_said_and_earlier_fingerprints_pass(capsys):
    restore(state(data="pictures"))
    restore(state(data="2:0123abcd"))  # the other form cannot be compared
    assert "training data differ" not in capsys.readouterr().out
    restore(state(data="films"))
    assert "the training data differ from the checkpoint's" in capsys.readouterr().out


def test_files_written_earlier_call_the_best_score_best_ap():
    assert restore(state(best_ap=0.4)).best_score == 0.4


def test_another_seed_inside_an_epoch_is_named_and_begins_the_epoch_anew(capsys):
    inside = state(step=7, progress={"epoch": 1, "step": 3, "meters": {}})
    assert (restore(inside).step, restore(inside).steps_taken) == (3, 7)
    capsys.readouterr()
    position = restore(inside, seed=1)
    assert (position.epoch, position.step, position.steps_taken) == (1, 0, 4)
    assert "--seed is 1, it was 0" in capsys.readouterr().out


def test_the_last_step_without_its_evaluation_is_not_the_end():
    trained = {"epoch": 1, "step": 4, "train_stats": {"loss": 1.0}}
    assert restore(state(step=8, progress=trained), max_steps=8).train_stats == {"loss": 1.0}
    with pytest.raises(ValueError, match="has taken 8 steps and --max_steps is 8"):
        restore(state(step=8, progress={"epoch": 1, "step": 4, "meters": {}}), max_steps=8)


def test_this_machines_choice_of_kernels_stays():
    optimizer, schedule = parts(fused=True)
    restore(state(), optimizer, schedule)  # of one without
    assert optimizer.param_groups[0]["fused"] is True
    assert optimizer.state[optimizer.param_groups[0]["params"][0]]["step"] == 1


def test_an_optimizer_without_its_moments_is_refused():
    damaged = state()
    del damaged["optimizer"]["state"][0]["exp_avg"]
    with pytest.raises(CheckpointError, match="old.pth: the training state cannot be restored .*exp_avg"):
        restore(damaged)


def test_a_schedule_that_would_replace_its_own_methods_is_refused():
    damaged = state()
    damaged["lr_scheduler"]["get_lr"] = 3.0
    with pytest.raises(CheckpointError, match="old.pth: the training state cannot be restored"):
        restore(damaged)


def test_weights_alone_begin_at_the_epoch_that_is_named():
    position = restore({"model": {}}, start_epoch=3, epochs=9)
    assert (position.epoch, position.step, position.steps_taken) == (3, 0, 12)


def per_step(epochs: int) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """An optimizer with a cosine schedule over so many epochs of four steps."""
    optimizer, _ = parts()
    args = argparse.Namespace(lr_schedule="cosine", warmup_steps=0, lr_drop=200, epochs=epochs, max_steps=None)
    return optimizer, build_lr_scheduler(optimizer, args, 4)[0]


def test_a_longer_training_changes_the_rate_of_a_schedule_by_steps_at_once():
    optimizer, schedule = per_step(2)
    for _ in range(4):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5e-3)  # half of two epochs
    saved = state(optimizer=optimizer.state_dict(), lr_scheduler=schedule.state_dict())
    longer, its_schedule = per_step(4)
    restore(saved, longer, its_schedule, epochs=4)
    quarter = 1e-3 * 0.5 * (1 + math.cos(math.pi / 4))
    assert longer.param_groups[0]["lr"] == pytest.approx(quarter) and its_schedule.get_last_lr() == [
        longer.param_groups[0]["lr"]
    ]


def test_the_new_end_of_a_cosine_is_said(capsys):
    optimizer, schedule = per_step(2)
    saved = state(optimizer=optimizer.state_dict(), lr_scheduler=schedule.state_dict())
    saved["args"] |= {"epochs": 2, "max_steps": None}
    restore(saved, *per_step(2))
    assert "cosine" not in capsys.readouterr().out
    restore(saved, *per_step(300), epochs=300)
    assert "--epochs is 300, it was 2: the learning rate follows the cosine to the new end" in capsys.readouterr().out


def test_a_rate_that_a_caller_sets_without_a_command_line_is_used():
    optimizer, schedule = per_step(2)
    saved = state(optimizer=optimizer.state_dict(), lr_scheduler=schedule.state_dict())
    saved["args"] |= {"lr": 1e-3}
    other, its_schedule = per_step(2)
    restore(saved, other, its_schedule, lr=2e-3)
    assert other.param_groups[0]["lr"] == pytest.approx(2e-3 * 0.5 * (1 + math.cos(math.pi / 2)))  # 4 of 8 steps


def test_processes_that_differ_in_the_steps_taken_alone_are_refused(monkeypatch):
    monkeypatch.setattr("training.state.all_gather", lambda place: [place, (*place[:2], place[2] + 1)])
    with pytest.raises(CheckpointError, match="they see different checkpoints"):
        check_same_position(Position(1, 2, 3), "auto")
