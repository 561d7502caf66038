"""The trial before training: its report, its errors, and that it changes nothing."""

import copy
import mmap
import random
import re
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import training.diagnosis.preflight
from datasets import build_dataset
from datasets.loader import build_data_loader
from engine import weighted_sum
from models import build_model
from tests.helpers.runs import parse
from training.diagnosis.preflight import preflight
from training.diagnosis.worst_batch import typical_batches, worst_batch
from training.optim import build_optimizer
from util.nested_tensor import nested_tensor_from_tensor_list

CPU = torch.device("cpu")


def batch(side: int, objects: int = 1) -> tuple:
    images = [torch.zeros(3, side, side + 1)] * 2
    return nested_tensor_from_tensor_list(images), [{"labels": torch.zeros(n)} for n in (objects, 0)]


def run(step, repeats: int = 2, **more) -> str:
    """A trial of a model without parameters on a large and three small batches."""
    model = more.pop("model", nn.Identity())
    return preflight(
        model, step, batch(8, 5), [batch(4)] * 3, device=CPU, steps=more.pop("steps", 1000), repeats=repeats, **more
    )


class Clock:
    """A clock that only steps advance: 2 s for a large batch, 0.5 s for a small one, 100 s for the first."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(training.diagnosis.preflight, "perf_counter", lambda: self.now)

    def step(self, samples, targets) -> None:
        self.calls.append(samples.tensors.shape[2])
        self.now += 100 if len(self.calls) == 1 else 2 if samples.tensors.shape[2] == 8 else 0.5


def test_the_forecast_rests_on_ordinary_batches_and_is_bounded_by_the_largest(monkeypatch):
    clock = Clock(monkeypatch)
    text = run(clock.step, steps=7200)
    assert clock.calls == [8, 8, 8, 4, 4, 4], "a warm-up, two measured, three ordinary ones"
    assert "2 images padded to 9x8 pixels, at most 5 objects in one: 2 s per step" in text
    assert "3 ordinary batches: 0.5 s per step" in text
    assert "7,200 steps in about 1:00:00; 4:00:00 if every batch were the largest" in text
    assert "evaluations" in text.rpartition("Not included:")[2]


def test_a_step_of_several_batches_takes_their_time(monkeypatch):
    text = run(Clock(monkeypatch).step, steps=1800, accumulate=4)
    assert "at most 5 objects in one: 8 s per step" in text and "3 ordinary batches: 2 s per step" in text
    assert "1,800 steps in about 1:00:00; 4:00:00 if every batch were the largest" in text


def test_the_slowest_process_and_the_largest_memory_are_reported(monkeypatch):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(training.diagnosis.preflight, "all_gather", lambda own: [own, ("", (8.0, 1.0, 2**50))])
    text = run(clock.step, steps=3600)
    assert "8 s per step" in text and f"{2**20}.00 GiB" in text and "in about 1:00:00; 8:00:00" in text
    assert "on each process" in text and "communication between processes" in text


@pytest.mark.skipif(
    not (training.diagnosis.preflight.PROC / "clear_refs").exists(), reason="the peak is reset through Linux's /proc"
)
def test_the_peak_memory_is_the_steps_and_not_an_earlier_one():
    def hold(megabytes: int) -> torch.Tensor:
        with mmap.mmap(-1, megabytes * 2**20) as memory:  # unlike freed tensors, always returned to the system
            for _ in range(megabytes):
                memory.write(bytes(2**20))
        return torch.ones(())

    def peak(megabytes: int) -> float:
        text = run(lambda *_: hold(megabytes), repeats=1)
        return float(re.search(r"peak memory ([\d.]+) GiB", text)[1])

    large = peak(128)
    assert large - peak(1) > 0.08


def test_memory_for_the_optimizers_state_is_allocated_during_the_trial(monkeypatch):
    model = nn.Linear(30, 20)
    optimizer = torch.optim.AdamW(model.parameters())
    made, held, ones_like = [], [], torch.ones_like

    def ones(like: Tensor, **more) -> Tensor:
        tensor = ones_like(like, **more)
        made.append(weakref.ref(tensor))
        return tensor

    def step(*_) -> None:
        held.append(sorted(tensor().numel() for tensor in made if tensor() is not None))

    monkeypatch.setattr(torch, "ones_like", ones)
    run(step, model=model, optimizer=optimizer)
    assert held[-1] == [20, 20, 600, 600], "two numbers for each weight"
    assert not any(tensor() is not None for tensor in made), "given back afterwards"
    model(torch.ones(1, 30)).sum().backward()
    optimizer.step()  # from here on it has its own moments
    run(step, model=model, optimizer=optimizer)
    assert held[-1] == []


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("Allocation on device failed"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        MemoryError(),
    ],
    ids=str,
)
def test_out_of_memory_is_one_sentence_with_what_to_lower(error):
    def step(*_) -> None:
        raise error

    with pytest.raises(ValueError) as refused:
        run(step)
    text = str(refused.value)
    assert "2 images padded to 9x8 pixels" in text and "--batch_size" in text and "--max_size" in text
    assert "\n" not in text


def test_out_of_memory_elsewhere_stops_this_process_too(monkeypatch):
    monkeypatch.setattr(training.diagnosis.preflight, "all_gather", lambda own: [own, ("does not fit", None)])
    with pytest.raises(ValueError, match="process 1: does not fit"):
        run(lambda *_: None)


def test_other_errors_keep_their_type_and_are_shared_with_all_processes(monkeypatch):
    told = []
    module = training.diagnosis.preflight
    monkeypatch.setattr(module, "all_gather", lambda own: told.append(own) or [own, ("", (1.0, 1.0, 1))])

    def step(*_) -> None:
        raise KeyError("labels")

    with pytest.raises(KeyError):
        run(step)
    assert told == [("KeyError: 'labels'", None)]


# --- A real model -----------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(shapes):
    """A detector with batch norm and dropout after one step, so that everything a trial could disturb exists."""
    args = parse(shapes, "--num_classes", "4", "--backbone_norm", "bn", "--dropout", "0.3")
    torch.manual_seed(0)
    model, criterion, _ = build_model(args)
    data = build_dataset("train", args)
    optimizer = build_optimizer(model, args)

    def step(samples, targets) -> None:
        weighted_sum(criterion(model(samples), targets, num_boxes=4.0), criterion.weight_dict).backward()

    step(*typical_batches(data, 2, 1)[0])
    optimizer.step()
    model.eval()
    model.transformer.train()
    return model, data, optimizer, step


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> list:
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    python, numpy = random.getstate(), np.random.get_state()[1].tolist()
    state = [model.state_dict(), gradients, optimizer.state_dict(), torch.get_rng_state()]
    return [copy.deepcopy(state), modes, python, numpy]


def assert_equal(a, b) -> None:
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert_equal(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("fails", [False, True])
def test_model_optimizer_and_generators_are_unchanged(parts, fails):
    model, data, optimizer, step = parts
    worst, typical = worst_batch(data, 4), typical_batches(data, 4, 2)
    seen = []

    def disturb(samples, targets) -> None:
        step(samples, targets)
        random.random(), np.random.rand()
        seen.append((model.training, all(p.grad is not None for p in model.parameters() if p.requires_grad)))
        if fails and len(seen) == 2:
            raise MemoryError

    before = snapshot(model, optimizer)
    own_gradient = model.class_embed.bias.grad
    if fails:
        with pytest.raises(ValueError):
            preflight(model, disturb, worst, typical, device=CPU, steps=10, optimizer=optimizer)
    else:
        preflight(model, disturb, worst, typical, device=CPU, steps=10, optimizer=optimizer)
    assert seen[0] == (True, True), "tried in training mode, backward included"
    assert_equal(snapshot(model, optimizer), before)
    assert model.class_embed.bias.grad is own_gradient


def test_the_trial_of_real_batches_reports_their_size(parts):
    model, data, optimizer, step = parts
    text = preflight(
        model, step, worst_batch(data, 4), typical_batches(data, 4, 1), device=CPU, steps=3, optimizer=optimizer
    )
    assert "4 images padded to 64x64 pixels" in text and "3 steps in about" in text


def test_the_first_epoch_sees_the_same_batches_with_or_without_a_trial(parts):
    _, data, _, _ = parts

    def first_epoch() -> list[Tensor]:
        return [samples.tensors for samples, _ in build_data_loader(data, 2, train=True)]

    before = first_epoch()
    worst_batch(data, 4), typical_batches(data, 4, 2)
    assert_equal(first_epoch(), before)
