"""The two loops: one epoch of training, one evaluation."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from pycocotools.coco import COCO
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from datasets.targets import check_targets
from evaluation.coco_eval import CocoEvaluator
from evaluation.panoptic_eval import PanopticEvaluator
from training.forensics import report_non_finite
from util.dist import reduce_dict
from util.logging import get_logger
from util.meters import MetricLogger, SmoothedValue
from util.progress import length_of
from util.signals import StopSignals

SHOWN = ("lr", "loss", "loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice", "class_error")
PANOPTIC_NAMES = {"PQ_all": "All", "PQ_th": "Things", "PQ_st": "Stuff"}  # in log.txt, as of the evaluator
AtRequest = Callable[[int, MetricLogger, bool], None]  # steps of the epoch done, its meters, whether to stop
Watch = Callable[[int, dict[str, float]], None]  # step, values


def train_one_epoch(
    model: nn.Module,
    criterion: nn.Module,
    data_loader: Iterable,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    epoch: int,
    max_norm: float = 0,
    *,
    lr_scheduler: LRScheduler | None = None,
    max_steps: int | None = None,
    print_freq: int = 10,
    first_step: int = 0,
    meters: dict[str, Any] | None = None,
    signals: StopSignals | None = None,
    at_request: AtRequest | None = None,
    watch: Watch | None = None,
    output_dir: str = "",
) -> dict[str, float]:
    """Train on every batch of `data_loader` once.

    Args:
        model, criterion: on `device`.
        data_loader: batches of (NestedTensor, targets), see `datasets.loader`.
        optimizer: over the model's trainable parameters.
        epoch: for the progress lines.
        max_norm: gradient norm over all parameters to clip at; 0 clips nothing.
        lr_scheduler: stepped after every step, if given.
        max_steps: stop after so many steps of this epoch.
        print_freq: steps between progress lines.
        first_step, meters: an interrupted epoch goes on: the loader begins with batch `first_step`, the meters where
            `MetricLogger.state_dict` left them.
        signals, at_request: when a process is asked to stop or to save, all of them call
            `at_request(steps of this epoch done, meters, stop)` after the same step; it may raise to end the epoch.
        watch: called as `watch(step, values)` with every progress line.
        output_dir: where a batch that gives non-finite numbers is saved for study; empty: nowhere.

    Returns:
        Each meter's mean over the epoch and all processes: `loss` (weighted total), the weighted losses by their
        names, every value as computed with `_unscaled` behind, `class_error`, `lr`.

    Raises:
        FloatingPointError: a loss or gradient is not finite on any process; no process has taken that step.
        ValueError: a target that cannot be, by image and annotation.
    """
    model.train()
    criterion.train()
    metric_logger = _new_meters()
    metric_logger.add_meter("lr", SmoothedValue(window_size=1, fmt="{value:.6f}"))
    if meters is not None:
        metric_logger.load_state_dict(meters)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    length = min((n for n in (length_of(data_loader), max_steps) if n is not None), default=None)
    progress = {"start": first_step, "length": length}
    batches = metric_logger.log_every(data_loader, print_freq, f"Epoch: [{epoch}]", **progress)
    for step, (samples, targets) in enumerate(batches, start=first_step):
        check_targets(targets, criterion.num_classes)
        samples, targets = _to_device(samples, targets, device)
        batch = (model, samples, targets, criterion)
        explain = partial(report_non_finite, epoch=epoch, step=step, output_dir=output_dir)
        try:
            loss_dict = criterion(model(samples), targets, padded_size=padded_size(samples))
        except FloatingPointError as error:
            raise FloatingPointError(explain(str(error), *batch)) from error
        optimizer.zero_grad()
        weighted_sum(loss_dict, criterion.weight_dict).backward()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        grad_norm = torch.nn.utils.get_total_norm(gradients)
        logs, asked = _read_losses(loss_dict, criterion.weight_dict, signals, grad_norm=grad_norm)
        if not math.isfinite(logs["loss"] + logs["grad_norm"]):
            found = f"the loss is {logs['loss']}, the gradient's norm {logs['grad_norm']}"
            raise FloatingPointError(explain(found, *batch))
        if max_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, grad_norm)
        optimizer.step()

        metric_logger.update(**logs, lr=optimizer.param_groups[0]["lr"])
        if watch is not None and step % print_freq == 0:
            watch(step, {**logs, **_rates(optimizer), **metric_logger.watched()})
        if lr_scheduler is not None:
            lr_scheduler.step()
        if asked is not None and at_request is not None:
            at_request(step + 1, metric_logger, asked == "stop")
        if step + 1 == max_steps:
            break

    batches.close()  # after a break, too, the progress ends with its summary
    metric_logger.synchronize_between_processes()
    get_logger().info(f"Averaged stats: {metric_logger}")
    return metric_logger.averages()


@torch.no_grad()
def evaluate(
    model: nn.Module,
    criterion: nn.Module,
    postprocessors: dict[str, nn.Module],
    data_loader: Iterable,
    base_ds: COCO,
    device: torch.device,
    output_dir: str,
    *,
    evaluator: str = "auto",
    print_freq: int = 10,
    signals: StopSignals | None = None,
    at_request: Callable[[bool], None] | None = None,
) -> tuple[dict[str, Any], CocoEvaluator]:
    """Losses and COCO's numbers over every batch of `data_loader`.

    Args:
        postprocessors: `bbox` turns outputs into boxes; with `segm` masks are evaluated, too, with `panoptic` panoptic
            maps against the loader's data set, a `CocoPanoptic`.
        base_ds: COCO's ground truth, crowds included.
        output_dir: where panoptic maps are written, in `panoptic_eval/`; empty: nowhere.
        evaluator: who computes AP, see `CocoEvaluator`.
        signals, at_request: as in `train_one_epoch`, but `at_request(stop)`.

    Returns:
        (stats, evaluator): the meters' means as in `train_one_epoch`; `coco_eval_bbox` and `coco_eval_masks`, the 12
        numbers of each; `PQ_all`, `PQ_th` and `PQ_st`, each {"pq", "sq", "rq", "n"}.

    Raises:
        FloatingPointError: an output or loss is not finite on any process.
        ValueError: a target that cannot be, or panoptic ground truth that cannot be evaluated.
    """
    model.eval()
    criterion.eval()
    metric_logger = _new_meters()
    kinds = [kind for kind in ("bbox", "segm") if kind in postprocessors]
    coco_evaluator = CocoEvaluator(base_ds, kinds, backend=evaluator)
    panoptic_evaluator = None
    if "panoptic" in postprocessors:
        truth, maps = data_loader.dataset, os.path.join(output_dir, "panoptic_eval") if output_dir else ""
        options = {"output_dir": maps, "allow_missing": truth.skip_bad_images}
        panoptic_evaluator = PanopticEvaluator(truth.ann_file, truth.ann_folder, **options)

    for samples, targets in metric_logger.log_every(data_loader, print_freq, "Test:"):
        check_targets(targets, criterion.num_classes)
        samples, targets = _to_device(samples, targets, device)
        outputs = model(samples)
        try:
            loss_dict = criterion(outputs, targets, padded_size=padded_size(samples))
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}; in evaluation, images {_image_ids(targets)}") from error
        logs, asked = _read_losses(loss_dict, criterion.weight_dict, signals)
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError(f"the loss is {logs['loss']} in evaluation, images {_image_ids(targets)}")
        metric_logger.update(**logs)
        originals, sizes = (torch.stack([target[name] for target in targets]) for name in ("orig_size", "size"))
        results = postprocessors["bbox"](outputs, originals)  # both sizes [B, 2]
        if "segm" in postprocessors:
            results = postprocessors["segm"](results, outputs, originals, sizes, padded_size(samples))
        ids = _image_ids(targets)
        coco_evaluator.update(dict(zip(ids, results)))
        if panoptic_evaluator is not None:
            maps = postprocessors["panoptic"](outputs, sizes, originals, padded_size(samples))
            names = [{"image_id": image_id, "file_name": f"{image_id:012d}.png"} for image_id in ids]
            panoptic_evaluator.update([name | found for name, found in zip(names, maps)])
        if asked is not None and at_request is not None:
            at_request(asked == "stop")

    metric_logger.synchronize_between_processes()
    get_logger().info(f"Averaged stats: {metric_logger}")
    coco_evaluator.synchronize_between_processes()
    coco_evaluator.accumulate()
    coco_evaluator.summarize()
    stats: dict[str, Any] = metric_logger.averages()
    for kind, name in (("bbox", "coco_eval_bbox"), ("segm", "coco_eval_masks")):
        if kind in kinds:
            stats[name] = coco_evaluator.coco_eval[kind].stats.tolist()
    if panoptic_evaluator is not None:
        panoptic_evaluator.synchronize_between_processes()
        found = panoptic_evaluator.summarize()
        stats |= {name: found[group] for name, group in PANOPTIC_NAMES.items()}
    return stats, coco_evaluator


def score(stats: dict[str, Any]) -> float:
    """What the best checkpoint is best in: PQ of panoptic maps, else AP of masks, else AP of boxes."""
    if "PQ_all" in stats:
        return stats["PQ_all"]["pq"]
    return stats.get("coco_eval_masks", stats["coco_eval_bbox"])[0]


def padded_size(samples: Any) -> tuple[int, int]:
    """(height, width) of a batch with its padding."""
    return tuple(samples.tensors.shape[-2:])


def trial_step(model: nn.Module, criterion: nn.Module, device: torch.device) -> Callable[[Any, Sequence[dict]], None]:
    """Forward, loss and backward of one batch as in training, but on this process alone and without an update."""

    def step(samples: Any, targets: Sequence[dict[str, Tensor]]) -> None:
        samples, targets = _to_device(samples, targets, device)
        num_boxes = max(1.0, float(sum(len(target["labels"]) for target in targets)))
        losses = criterion(model(samples), targets, num_boxes=num_boxes, padded_size=padded_size(samples))
        weighted_sum(losses, criterion.weight_dict).backward()

    return step


def weighted_sum(loss_dict: dict[str, Tensor], weight_dict: dict[str, float]) -> Tensor:
    """The loss to optimise: the named losses times their weights; logs are not in it."""
    return sum(loss_dict[name] * weight for name, weight in weight_dict.items() if name in loss_dict)


def _new_meters() -> MetricLogger:
    metric_logger = MetricLogger(delimiter="  ", shown=SHOWN, watch_only=("grad_norm",))
    metric_logger.add_meter("class_error", SmoothedValue(window_size=1, fmt="{value:.2f}"))
    return metric_logger


def _read_losses(
    loss_dict: dict[str, Tensor], weight_dict: dict[str, float], signals: StopSignals | None, **more: Tensor
) -> tuple[dict[str, float], str | None]:
    """Means over all processes as numbers, under the published names; the host waits for the device once.

    The wishes of `signals` travel along, so that every process hears of them at the same step.

    Returns:
        (numbers, "stop" or "save" or None).
    """
    names, device = list(loss_dict), loss_dict["class_error"].device
    values = {name: value.detach() for name, value in {**loss_dict, **more}.items()}
    if signals is not None:
        wishes = {"wish_stop": signals.stop, "wish_save": signals.save}
        values |= {name: torch.full([], float(wish), device=device) for name, wish in wishes.items()}
    reduced = reduce_dict(values)
    numbers = dict(zip(reduced, torch.stack(list(reduced.values())).tolist()))
    scaled = {name: numbers[name] * weight_dict[name] for name in names if name in weight_dict}
    unscaled = {f"{name}_unscaled": numbers[name] for name in names}
    watched = {name: numbers[name] for name in more}
    logs = {"loss": sum(scaled.values()), **scaled, **unscaled, "class_error": numbers["class_error"], **watched}
    asked = "stop" if numbers.get("wish_stop") else "save" if numbers.get("wish_save") else None
    return logs, asked


def _rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    return {f"lr_{index}": group["lr"] for index, group in enumerate(optimizer.param_groups)}


def _image_ids(targets: Sequence[dict[str, Tensor]]) -> list[int]:
    return [int(target["image_id"]) for target in targets]


def _to_device(samples: Any, targets: Sequence[dict[str, Tensor]], device: torch.device) -> tuple[Any, list[dict]]:
    """The batch on `device`; `image_id` stays where it is, since only the host reads it."""
    moved = [
        {name: v if name == "image_id" else v.to(device, non_blocking=True) for name, v in target.items()}
        for target in targets
    ]
    return samples.to(device, non_blocking=True), moved
