"""Our own code in a fresh process: `python -m benchmarks.subjects.ours JSON`. `form` selects the path through it."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.work import (
    Work,
    autocast,
    do_work,
    made_images,
    made_predictions,
    made_targets,
    numbers_of,
    repeated,
    set_norms,
    synchronize,
)
from benchmarks.subjects.plain import to_plain
from engine import Monitor, train_one_epoch, weighted_sum
from models import build_model
from models.fast.inference import optimize_for_inference
from training.optim import build_optimizer
from util.arguments import get_args_parser
from util.compute.compilation import compiled
from util.compute.precision import Precision
from util.dist import distribute, end_distributed_mode, init_distributed_mode
from util.nested_tensor import NestedTensor

MAX_NORM = 0.1  # the published clipping


def settings_of(work: Work) -> argparse.Namespace:
    """All settings of a run: the published ones, but for what the work says."""
    args = argparse.ArgumentParser(parents=[get_args_parser()]).parse_args([])
    known = {"backbone": work.backbone, "num_queries": work.queries, "dec_layers": work.layers, "device": work.device}
    vars(args).update(known, masks=work.masks, backbone_weights="none")
    if work.masks:
        args.dataset_file = "coco_panoptic"
    switches = {"amp": work.amp, "compile": work.compile, **(work.flags or {})}
    missing = sorted(name for name, value in switches.items() if value not in ("none", False) and name not in args)
    if missing:
        raise SystemExit(f"this version has no --{missing[0]}")
    vars(args).update({name: value for name, value in switches.items() if name in args})
    return args


def build(work: Work) -> tuple[nn.Module, nn.Module, argparse.Namespace]:
    """(model, criterion, settings) in the wanted form."""
    args = settings_of(work)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about random weights
        model, criterion, _ = build_model(args)
    set_norms(model)
    if work.form == "plain":
        to_plain(model, criterion)
    elif work.form == "optimized":
        model = optimize_for_inference(model.eval(), cuda_graphs=True)  # graphs on CUDA alone
    return model, criterion, args


def inference(work: Work) -> tuple[list[float], list[float]]:
    """(seconds, numbers of the result) of forward passes."""
    model, _, _ = build(work)
    model, samples = model.eval(), NestedTensor(*made_images(work))
    model = compiled(model, work.compile)
    names = ["pred_logits", "pred_boxes", *(["pred_masks"] if work.masks else [])]

    @torch.inference_mode()
    def step() -> Mapping[str, Tensor]:
        with autocast(work):
            outputs = model(samples)
            return {name: outputs[name] for name in names}  # masks may be computed when they are read

    seconds, outputs = repeated(work, step), step()
    return seconds, numbers_of(*outputs.values())


class Clock(Monitor):
    """Notes when each step of a training loop is done."""

    def __init__(self, device: str):
        self.device, self.times, self.losses = device, [], []

    def observe(self, step: int, values: Mapping[str, float], *others: Any) -> None:
        synchronize(self.device)
        self.times.append(time.perf_counter())
        self.losses.append(values["loss"])


def training(work: Work) -> tuple[list[float], list[float]]:
    """(seconds, the last loss) of steps of the training loop."""
    model, criterion, args = build(work)
    init_distributed_mode(args)  # with one process it does nothing
    model = compiled(distribute(model, args), args.compile)
    batch = (NestedTensor(*made_images(work)), made_targets(replace(work, device="cpu")))  # as from a loader
    clock, steps = Clock(work.device), work.warmup + work.repeats
    train_one_epoch(
        model,
        criterion,
        [batch] * steps,
        build_optimizer(model, args),
        torch.device(work.device),
        0,
        MAX_NORM,
        print_freq=steps + 1,
        monitor=clock,
        precision=Precision(args.amp, work.device),
    )
    end_distributed_mode()
    seconds = [end - start for start, end in zip(clock.times, clock.times[1:])]
    return seconds[-work.repeats :], clock.losses[-1:]


def criterion(work: Work) -> tuple[list[float], list[float]]:
    """(seconds, loss) of matching and losses of all decoder layers, forward and backward."""
    _, criterion, _ = build(work)
    (last, *others), targets = made_predictions(work), made_targets(work)

    def step() -> Tensor:
        losses = criterion({**last, "aux_outputs": others}, targets, padded_size=(work.height, work.width))
        loss = weighted_sum(losses, criterion.weight_dict)
        loss.backward()
        return loss.detach()

    return repeated(work, step), [step().item()]


if __name__ == "__main__":
    do_work(inference, training, criterion)
