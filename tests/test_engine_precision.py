"""The two loops in half types: what stays float32, and steps whose gradients overflow."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from datasets import build_dataset, get_coco_api_from_dataset
from datasets.loader import build_data_loader
from engine import Monitor, evaluate, train_one_epoch, trial_step
from models import build_model
from tests.helpers.runs import parse
from training.optim import build_lr_scheduler, build_optimizer
from util.compute.precision import Precision

CPU = torch.device("cpu")


@pytest.fixture
def parts(shapes: Path):
    torch.manual_seed(0)
    flags = "--num_classes 4 --lr 1e-3 --backbone_norm frozen_bn --lr_schedule cosine --warmup_steps 1 --epochs 1"
    args = parse(shapes, *flags.split())
    model, criterion, postprocessors = build_model(args)
    loader = build_data_loader(build_dataset("train", args), 2, train=True)
    return args, model, criterion, postprocessors, loader, build_optimizer(model, args)


def float16() -> Precision:
    """With a scale of the loss at which the gradients of the tiny model do not overflow."""
    precision = Precision("fp16")
    precision.load_state_dict(precision.state_dict() | {"scale": 64.0})
    return precision


class Recording(Monitor):
    """Notes the values of each step, the first rate and a weight after it."""

    def __init__(self, model: torch.nn.Module):
        self.model, self.values, self.rates, self.biases = model, [], [], []

    def observe(self, step, values, optimizer, meters):
        self.values.append(dict(values))
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.biases.append(self.model.class_embed.bias.detach().clone())


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_the_network_runs_in_half_types_and_all_else_in_float32(parts, amp):
    _, model, criterion, _, loader, optimizer = parts
    types, losses = set(), set()
    model.class_embed.register_forward_hook(lambda module, given, output: types.add(output.dtype))
    criterion.register_forward_hook(lambda module, given, output: losses.update(v.dtype for v in output.values()))
    stats = train_one_epoch(model, criterion, loader, optimizer, CPU, 0, 0.1, precision=Precision(amp))
    assert types == {Precision(amp).dtype} and losses == {torch.float32}
    kept = [*model.parameters(), *(p.grad for p in model.parameters() if p.grad is not None)]
    kept += [value for state in optimizer.state.values() for value in state.values()]
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    assert math.isfinite(stats["loss"])


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_the_losses_are_those_of_float32_up_to_the_rounding_of_the_network(parts, amp):
    args, model, criterion, postprocessors, _, _ = parts
    dataset = build_dataset("val", args)
    base = get_coco_api_from_dataset(dataset)

    def losses(precision: Precision) -> dict[str, float]:
        loader = build_data_loader(dataset, 4, train=False)
        return evaluate(model, criterion, postprocessors, loader, base, CPU, "", precision=precision)[0]

    plain, half = losses(Precision()), losses(Precision(amp))
    assert half["loss"] != plain["loss"]  # it did run in the other type
    assert half["loss"] == pytest.approx(plain["loss"], rel=0.02)  # bfloat16 rounds to 1 in 256


def test_an_overflow_takes_no_step_and_the_next_step_is_the_first(parts):
    """Neither weights nor rate move in the step whose gradient overflows, and its norm is none of the run's."""
    args, model, criterion, _, loader, optimizer = parts
    scheduler, per_step = build_lr_scheduler(optimizer, args, len(loader))
    seen = []

    def overflow_once(gradient):
        seen.append(None)
        return gradient * math.inf if len(seen) == 1 else gradient

    model.class_embed.bias.register_hook(overflow_once)
    before, monitor, precision = model.class_embed.bias.detach().clone(), Recording(model), float16()
    train_one_epoch(
        model, criterion, loader, optimizer, CPU, 0, 0.1, lr_scheduler=scheduler, monitor=monitor, precision=precision
    )
    assert per_step and torch.equal(monitor.biases[0], before) and not torch.equal(monitor.biases[1], before)
    assert monitor.rates[0] == monitor.rates[1] and monitor.rates[2] != monitor.rates[1]
    assert ["grad_norm" in values for values in monitor.values] == [False, True, True, True]
    assert {int(state["step"]) for state in optimizer.state.values()} == {3}
    assert precision.state_dict()["scale"] == 32.0


def test_gradients_are_clipped_without_the_scale_of_the_loss(parts, monkeypatch):
    _, model, criterion, _, loader, optimizer = parts
    norms, batches = [], list(loader)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    monkeypatch.setattr(
        optimizer, "step", lambda: norms.append(torch.nn.utils.get_total_norm([p.grad for p in trained]).item())
    )
    for max_norm, precision in ((0.1, float16()), (0, float16()), (0, Precision())):
        train_one_epoch(model, criterion, batches, optimizer, CPU, 0, max_norm, precision=precision)
    assert norms[:4] == pytest.approx([0.1] * 4, rel=1e-3)
    assert norms[4:8] == pytest.approx(norms[8:], rel=0.05)  # those of float32; the scale is 64


def test_a_network_that_overflows_is_an_error(parts):
    _, model, criterion, _, loader, optimizer = parts
    with torch.no_grad():
        model.class_embed.bias.fill_(1e5)  # beyond float16
    with pytest.raises(FloatingPointError, match="in epoch 3, step 0"):
        train_one_epoch(model, criterion, loader, optimizer, CPU, 3, precision=Precision("fp16"))


def test_the_cause_is_looked_for_in_the_type_that_failed(parts):
    _, model, criterion, _, loader, optimizer = parts
    found = []

    class Explaining(Monitor):
        def explain(self, what, *rest):
            found.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
            return what

    criterion.weight_dict = dict(criterion.weight_dict, loss_ce=math.nan)
    for amp in ("fp16", "none"):
        with pytest.raises(FloatingPointError):
            train_one_epoch(model, criterion, loader, optimizer, CPU, 0, monitor=Explaining(), precision=Precision(amp))
    assert found == [torch.float16, None]


def test_the_trial_of_the_largest_batch_runs_in_the_type_of_the_training(parts):
    _, model, criterion, _, loader, _ = parts
    types = []
    model.class_embed.register_forward_hook(lambda module, given, output: types.append(output.dtype))
    trial_step(model, criterion, CPU, Precision("bf16"))(*next(iter(loader)))
    assert types == [torch.bfloat16]
