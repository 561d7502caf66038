"""Which parameters learn at which rate, and how the rates change."""

import argparse
import itertools

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from training.optim import build_lr_scheduler, build_optimizer, param_groups

LR, LR_BACKBONE = 1e-3, 1e-4


class Detector(nn.Module):
    """A backbone with a frozen stem, and all that learns at the other rate."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleDict({"stem": nn.Linear(2, 2), "stage": nn.Linear(2, 2), "norm": nn.BatchNorm1d(2)})
        self.transformer = nn.ModuleDict({"linear": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
        self.query_embed = nn.Embedding(3, 2)
        self.backbone["stem"].requires_grad_(False)


def flags(**changes) -> argparse.Namespace:
    values = {"lr": LR, "lr_backbone": LR_BACKBONE, "weight_decay": 0.1, "epochs": 6, "lr_drop": 4}
    return argparse.Namespace(**(values | {"lr_schedule": "step", "warmup_steps": 0, "max_steps": None} | changes))


def group_names(model: nn.Module, groups: list[dict]) -> list[set[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [{names[id(parameter)] for parameter in group["params"]} for group in groups]


def rates(args: argparse.Namespace, steps_per_epoch: int) -> list[list[float]]:
    """The groups' rates at every step of a training, in the order in which it would use them."""
    optimizer = build_optimizer(Detector(), args)
    scheduler, per_step = build_lr_scheduler(optimizer, args, steps_per_epoch)
    used = []
    for _ in range(args.epochs):
        for _ in range(steps_per_epoch):
            used.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            if per_step:
                scheduler.step()
        if not per_step:
            scheduler.step()
    return used


def main_rates(args: argparse.Namespace, steps_per_epoch: int = 5) -> list[float]:
    return [rate for rate, _ in rates(args, steps_per_epoch)]


# --- Groups -----------------------------------------------------------------------------------------------------------


def test_two_groups_hold_all_that_trains_once():
    model = Detector()
    groups = param_groups(model, LR, LR_BACKBONE)
    assert [group["lr"] for group in groups] == [LR, LR_BACKBONE]
    rest, backbone = group_names(model, groups)
    assert backbone == {"backbone.stage.weight", "backbone.stage.bias", "backbone.norm.weight", "backbone.norm.bias"}
    linear_and_norm = {f"transformer.{part}.{kind}" for part in ("linear", "norm") for kind in ("weight", "bias")}
    assert rest == linear_and_norm | {"query_embed.weight"}


def test_weight_decay_covers_norms_and_biases_too():
    model = Detector()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)  # biases start at zero, where decay would not show
            parameter.grad = torch.zeros_like(parameter)
    build_optimizer(model, flags()).step()  # without gradients, decay alone acts
    for name, parameter in model.named_parameters():
        rate = 0 if "stem" in name else LR_BACKBONE if "backbone" in name else LR
        torch.testing.assert_close(parameter.detach(), (before[name] + 1) * (1 - rate * 0.1), msg=name)


def test_the_optimizer_is_adamw_of_the_command_line():
    optimizer = build_optimizer(Detector(), flags(weight_decay=0.03))
    assert type(optimizer) is torch.optim.AdamW
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (LR, 0.03),
        (LR_BACKBONE, 0.03),
    ]
    assert optimizer.defaults["betas"] == (0.9, 0.999) and optimizer.defaults["eps"] == 1e-8


def test_the_fused_optimizer_is_the_plain_one():
    fused, plain = Detector(), Detector()
    plain.load_state_dict(fused.state_dict())
    optimizers = (
        build_optimizer(fused, flags()),
        torch.optim.AdamW(param_groups(plain, LR, LR_BACKBONE), weight_decay=0.1, foreach=False),
    )
    assert optimizers[0].defaults["fused"]
    for _ in range(5):
        for model, optimizer in zip((fused, plain), optimizers):
            optimizer.zero_grad()
            sum(parameter.pow(3).sum() for parameter in model.parameters()).backward()
            optimizer.step()
    for (name, parameter), other in zip(fused.named_parameters(), plain.parameters()):
        torch.testing.assert_close(parameter, other, msg=name)


def test_a_device_without_the_fused_kernel_does_without_it():
    assert not build_optimizer(Detector().to("meta"), flags()).defaults["fused"]


def test_a_frozen_backbone_leaves_its_group_empty():
    model = Detector()
    model.backbone.requires_grad_(False)
    assert [len(group["params"]) for group in build_optimizer(model, flags()).param_groups] == [5, 0]


# --- Schedules --------------------------------------------------------------------------------------------------------


def test_the_published_schedule_steps_by_epoch_and_has_the_published_state():
    optimizer = build_optimizer(Detector(), flags())
    scheduler, per_step = build_lr_scheduler(optimizer, flags(), steps_per_epoch=5)
    assert not per_step
    assert scheduler.state_dict() == StepLR(build_optimizer(Detector(), flags()), 4).state_dict()


def test_rates_fall_to_a_tenth_at_the_drop():
    used = rates(flags(), steps_per_epoch=5)
    assert used[:20] == [[LR, LR_BACKBONE]] * 20  # epochs 0 to 3
    assert used[20] == pytest.approx([LR / 10, LR_BACKBONE / 10])
    assert used[20:] == [used[20]] * 10


def test_warm_up_rises_in_equal_steps_to_the_full_rate():
    used = main_rates(flags(warmup_steps=7))
    assert used[:8] == pytest.approx([LR * i / 8 for i in range(1, 9)])
    assert 0 < used[0] and used[7] == pytest.approx(LR)


def test_warm_up_leaves_the_drop_where_it_is():
    warmed, plain = main_rates(flags(warmup_steps=7)), main_rates(flags())
    assert warmed[7:] == pytest.approx(plain[7:])
    assert warmed[19] == pytest.approx(LR) and warmed[20] == pytest.approx(LR / 10)


def test_warm_up_is_stepped_by_step():
    args = flags(warmup_steps=7)
    assert build_lr_scheduler(build_optimizer(Detector(), args), args, 5)[1]


def test_cosine_falls_from_the_full_rate_to_nearly_nothing_at_the_last_step():
    used = main_rates(flags(lr_schedule="cosine"))
    assert used[0] == pytest.approx(LR)
    assert used[15] == pytest.approx(LR / 2)
    assert all(later < earlier for earlier, later in itertools.pairwise(used))
    assert 0 < used[-1] < 0.01 * LR


def test_cosine_begins_behind_the_warm_up():
    used = main_rates(flags(lr_schedule="cosine", warmup_steps=6))
    assert used[:7] == pytest.approx([LR * i / 7 for i in range(1, 8)])
    assert used[18] == pytest.approx(LR / 2)  # half-way from 6 to 30
    assert 0 < used[-1] < 0.01 * LR


def test_cosine_ends_with_max_steps():
    used = main_rates(flags(lr_schedule="cosine", max_steps=20))
    assert used[10] == pytest.approx(LR / 2)
    assert 0 < used[19] < 0.01 * LR
    assert used[20:] == pytest.approx([0] * 10)  # past the end it stays down


def test_max_steps_beyond_the_epochs_changes_nothing():
    assert main_rates(flags(lr_schedule="cosine", max_steps=999)) == main_rates(flags(lr_schedule="cosine"))


@pytest.mark.parametrize("changes", [{}, {"warmup_steps": 7}, {"lr_schedule": "cosine", "warmup_steps": 7}], ids=str)
def test_both_groups_keep_their_ratio(changes):
    for rate, backbone in rates(flags(**changes), steps_per_epoch=5):
        assert backbone == pytest.approx(rate * LR_BACKBONE / LR)


@pytest.mark.parametrize("changes", [{"warmup_steps": 30}, {"warmup_steps": 12, "max_steps": 12}], ids=str)
def test_a_warm_up_as_long_as_the_training_is_refused(changes):
    args = flags(**changes)
    steps = args.warmup_steps
    with pytest.raises(ValueError, match=f"--warmup_steps {steps} must be below the {steps} steps"):
        build_lr_scheduler(build_optimizer(Detector(), args), args, steps_per_epoch=5)
