"""Our own code under torch's profiler, in a fresh process: `python -m benchmarks.subjects.profiled JSON`.

An operation is grouped by its name. Names that many parts share, such as a product, are told apart by the ranges that
this file opens: frozen norms of the plain form, and the criterion. An operation of the backward pass belongs to the
range of the forward operation with the same sequence number.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.common.work import Work, made_images, made_targets, read_work, report
from benchmarks.subjects import plain
from benchmarks.subjects.ours import MAX_NORM, build
from engine import Monitor, train_one_epoch
from models.criterion import SetCriterion
from models.fast.inference import FusedConv
from models.frozen_batch_norm import FrozenBatchNorm2d
from training.optim import build_optimizer
from util.nested_tensor import NestedTensor

RANGE = "part: "
CONVOLUTIONS, NORMS, LOSSES, UPDATE = "convolutions", "frozen norms", "matching and losses", "clipping and optimizer"
BY_NAME = (  # group, pattern of the names of its operations; the first that fits counts
    (CONVOLUTIONS, r"conv|mkldnn::_reorder"),
    ("attention", r"attention|sdp|softmax|bmm"),
    ("linear layers", r"addmm|::mm|linear|matmul"),
    ("other norms", r"layer_norm|group_norm|batch_norm"),
    (NORMS, r"addcmul"),
    ("activations and pooling", r"relu|threshold|sigmoid|gelu|pool|dropout|bernoulli"),
    (UPDATE, r"adamw|optimizer|foreach|linalg_vector_norm"),
    ("sums and products", r"::add|::sub|::mul|::div|::sum|accumulategrad"),
    ("copies", r"copy|clone|contiguous|::cat|::stack|fill|zero|::to$|empty"),
)


class ProfiledSteps(Monitor):
    """Profiles the training steps after the first ones."""

    def __init__(self, work: Work, profiler: profile):
        self.work, self.profiler = work, profiler

    def observe(self, step: int, *others: Any) -> None:
        if step + 1 == self.work.warmup:
            self.profiler.start()
        if step + 1 == self.work.warmup + self.work.repeats:
            self.profiler.stop()


def ranged(owner: Any, name: str, part: str) -> None:
    """Wrap a method so that what it does is in a range."""
    original: Callable[..., Any] = getattr(owner, name)

    def inside(*args: Any, **options: Any) -> Any:
        with record_function(RANGE + part):
            return original(*args, **options)

    setattr(owner, name, inside)


def run(work: Work, profiler: profile) -> None:
    """Do the work; only the repetitions are profiled."""
    ranged(plain.SeparateNorm, "forward", NORMS)
    ranged(SetCriterion, "forward", LOSSES)
    ranged(FrozenBatchNorm2d, "after_conv", CONVOLUTIONS)  # with the norm folded in
    ranged(FusedConv, "forward", CONVOLUTIONS)
    model, criterion, args = build(work)
    samples = NestedTensor(*made_images(work))
    if work.task == "training":
        batches = [(samples, made_targets(work))] * (work.warmup + work.repeats)
        optimizer, device = build_optimizer(model, args), torch.device(work.device)
        monitor = ProfiledSteps(work, profiler)
        train_one_epoch(
            model, criterion, batches, optimizer, device, 0, MAX_NORM, print_freq=len(batches) + 1, monitor=monitor
        )
        return
    model.eval()
    with torch.inference_mode():
        for _ in range(work.warmup):
            model(samples)
        with profiler:
            for _ in range(work.repeats):
                model(samples)


def grouped(events: Any, on_device: bool) -> Mapping[str, float]:
    """Group → seconds of all events."""
    ranges: dict[tuple[int, int], str] = {}  # (thread, sequence number) of forward operations → range
    for event in events:
        part = range_of(event)
        if part and event.sequence_nr >= 0:
            ranges[event.thread, event.sequence_nr] = part
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        own = event.self_device_time_total if on_device else event.self_cpu_time_total
        if own > 0 and not event.name.startswith("ProfilerStep"):
            seconds[range_of(event) or forward_range_of(event, ranges) or group_of(event)] += own / 1e6
    return seconds


def range_of(event: Any) -> str | None:
    """The range that an event lies in."""
    while event is not None:
        if event.name.startswith(RANGE):
            return event.name.removeprefix(RANGE)
        if event.name.startswith("Optimizer.step"):
            return UPDATE
        event = event.cpu_parent
    return None


def forward_range_of(event: Any, ranges: Mapping[tuple[int, int], str]) -> str | None:
    """The range of the forward operation whose gradient an event computes."""
    while event is not None:
        found = ranges.get((event.fwd_thread, event.sequence_nr)) if event.name.startswith("autograd::engine") else None
        if found:
            return found
        event = event.cpu_parent
    return None


def group_of(event: Any) -> str:
    """The group of an event by its name, or by that of the operation around it."""
    while event is not None:
        for group, pattern in BY_NAME:
            if re.search(pattern, event.name, re.IGNORECASE):
                return group
        event = event.cpu_parent
    return "other"


def main() -> None:
    """Profile the work of the command line."""
    work = read_work()
    cuda = work.device.startswith("cuda")
    profiler = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])])
    run(work, profiler)
    seconds = {group: value / work.repeats for group, value in grouped(profiler.events(), cuda).items()}
    report(work, [], values=seconds)


if __name__ == "__main__":
    main()
