"""Putting a checkpoint's training state back, without a training: what is taken, kept, named and refused."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import torch

from util.checkpoint import CheckpointError
from util.resume import Position, get_rng_state, restore_training


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
    args = {"resume": "old.pth", "epochs": 2, "max_steps": None, "batch_size": 2, "seed": 0, "start_epoch": 0}
    args = argparse.Namespace(**(args | settings))
    return restore_training(args, checkpoint, optimizer, schedule, steps_per_epoch=4, data="pictures")


def test_the_best_score_so_far_comes_back():
    assert restore(state(best_ap=0.4)).best_ap == 0.4
    assert restore(state()).best_ap == -1.0


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
    with pytest.raises(CheckpointError, match="old.pth: its training state cannot be continued .*exp_avg"):
        restore(damaged)


def test_a_schedule_that_would_replace_its_own_methods_is_refused():
    damaged = state()
    damaged["lr_scheduler"]["get_lr"] = 3.0
    with pytest.raises(CheckpointError, match="old.pth: its training state cannot be continued"):
        restore(damaged)
