"""Saved states of optimizer and schedule: what could not take the next step is refused before it is loaded."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, StepLR

from training.optimizer_state import check_optimizer_state, check_schedule_state


def training():
    """(optimizer over two groups, schedule) after one step."""
    torch.manual_seed(0)
    linear, backbone = torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)
    groups = [{"params": list(linear.parameters()), "lr": 1e-4}, {"params": list(backbone.parameters()), "lr": 1e-5}]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    schedule = StepLR(optimizer, 200)
    backbone(linear(torch.ones(4, 3))).sum().backward()
    optimizer.step()
    schedule.step()
    return optimizer, schedule


def changed(state, place: str, value):
    """A copy of `state` with the entry at `place`, keys and indices with dots between, replaced or dropped."""
    state = copy.deepcopy(state)
    *path, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    holder = state
    for part in path:
        holder = holder[part]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value(holder[last]) if isinstance(value, Callable) else value
    return state


def test_states_of_the_same_training_pass_and_load():
    optimizer, schedule = training()
    state, plan = optimizer.state_dict(), schedule.state_dict()
    fresh, fresh_schedule = training()
    check_optimizer_state(state, fresh)
    check_schedule_state(plan, fresh_schedule)
    check_optimizer_state(changed(state, "state.0.step", 5), fresh)  # older versions counted in a plain number
    check_optimizer_state(changed(state, "state", {}), fresh)  # before the first step
    check_optimizer_state(changed(state, "param_groups.0.foreach", True), fresh)  # another machine's kernel
    check_schedule_state({**plan, "verbose": False}, fresh_schedule)  # older versions saved it


def test_a_state_without_what_newer_versions_added_passes():
    optimizer, _ = training()
    state = optimizer.state_dict()
    for name in ("maximize", "decoupled_weight_decay"):
        for group in state["param_groups"]:
            group.pop(name, None)
    check_optimizer_state(state, optimizer)


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("param_groups", ..., "lacks param_groups or state"),
        ("state", [], "lacks param_groups or state"),
        ("param_groups", [], r"groups hold \[\] parameters, the model's \[2, 2\]"),
        ("param_groups.1", 5, r"groups hold \[2, None\] parameters"),
        ("param_groups.1.params", [2], r"groups hold \[2, 1\] parameters"),
        ("param_groups.0.params", ["0", "1"], "parameters that are not in its groups"),
        ("param_groups.0.lr", "fast", "lr of the optimizer's group 0 is 'fast'"),
        ("param_groups.0.lr", ..., "lr of the optimizer's group 0 is None"),
        ("param_groups.0.lr", float("nan"), "lr of the optimizer's group 0 is nan"),
        ("param_groups.1.lr", -1.0, "lr of the optimizer's group 1"),
        ("param_groups.0.betas", [0.9], "betas of the optimizer's group 0"),
        ("param_groups.0.betas", (0.9, 1.5), "betas of the optimizer's group 0"),
        ("param_groups.0.weight_decay", True, "weight_decay of the optimizer's group 0"),
        ("param_groups.0.amsgrad", True, "amsgrad of the optimizer's group 0"),
        ("state.0", 5, "step of the optimizer's parameter 0 is None"),
        ("state.0.step", "5", "step of the optimizer's parameter 0 is '5'"),
        ("state.0.step", torch.zeros(2), r"step of the optimizer's parameter 0 is a tensor \[2\]"),
        ("state.0.step", torch.tensor(float("inf")), "step of the optimizer's parameter 0"),
        ("state.1.exp_avg", ..., "exp_avg of the optimizer's parameter 1 is None"),
        ("state.1.exp_avg", torch.zeros(3), r"exp_avg of the optimizer's parameter 1 is a tensor \[3\]"),
        ("state.2.exp_avg_sq", lambda old: old * torch.nan, "exp_avg_sq of the optimizer's parameter 2 .* not finite"),
        ("state.2.exp_avg_sq", lambda old: old.to_sparse(), "exp_avg_sq of the optimizer's parameter 2"),
        ("state.2.exp_avg_sq", lambda old: old.to(torch.complex64), "exp_avg_sq of the optimizer's parameter 2"),
        ("state.9", {}, "parameters that are not in its groups"),
    ],
)
def test_an_optimizer_state_that_does_not_fit_is_refused(place, value, sentence):
    optimizer, _ = training()
    with pytest.raises(ValueError, match=sentence):
        check_optimizer_state(changed(optimizer.state_dict(), place, value), optimizer)


def test_another_optimizers_state_is_refused():
    optimizer, _ = training()
    state = optimizer.state_dict()
    state["state"][0]["max_exp_avg_sq"] = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="the state of the optimizer's parameter 0 belongs to another kind"):
        check_optimizer_state(state, optimizer)


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("last_epoch", "1", "last_epoch of the schedule is '1'"),
        ("last_epoch", -1, "last_epoch of the schedule is -1"),
        ("last_epoch", ..., "has no last_epoch"),
        ("gamma", float("inf"), "gamma of the schedule"),
        ("step_size", 0, "step_size of the schedule is 0"),
        ("base_lrs", [1e-4], "base_lrs of the schedule"),
        ("_last_lr", [1e-4, None], "_last_lr of the schedule"),
        ("step", 5, "has 'step', which is not an entry"),  # it would take the method's place
        ("get_lr", None, "has 'get_lr', which is not an entry"),
        ("optimizer", None, "has 'optimizer', which is not an entry"),
    ],
)
def test_a_schedules_state_of_another_kind_is_refused(place, value, sentence):
    _, schedule = training()
    with pytest.raises(ValueError, match=sentence):
        check_schedule_state(changed(schedule.state_dict(), place, value), schedule)


def test_a_schedule_by_steps_is_checked_too():
    optimizer, _ = training()
    schedule = LambdaLR(optimizer, lambda step: 1.0)
    check_schedule_state(schedule.state_dict(), schedule)
    with pytest.raises(ValueError, match="lr_lambdas of the schedule"):
        check_schedule_state({**schedule.state_dict(), "lr_lambdas": [{"__code__": 5}, None]}, schedule)
    with pytest.raises(ValueError, match="has 7, which is not an entry"):
        check_schedule_state({**schedule.state_dict(), 7: 1}, schedule)
