"""The two loops: one epoch of training, one evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from pycocotools.coco import COCO
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from datasets.coco_eval import CocoEvaluator
from util.dist import reduce_dict
from util.logging import MetricLogger, SmoothedValue, get_logger

SHOWN = ("lr", "loss", "loss_ce", "loss_bbox", "loss_giou", "class_error")


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

    Returns:
        Each meter's mean over the epoch and all processes: `loss` (weighted total), the weighted losses by their
        names, every value as computed with `_unscaled` behind, `class_error`, `lr`.

    Raises:
        FloatingPointError: the loss is not finite; the optimizer has not taken that step.
    """
    model.train()
    criterion.train()
    metric_logger = MetricLogger(delimiter="  ", shown=SHOWN)
    metric_logger.add_meter("lr", SmoothedValue(window_size=1, fmt="{value:.6f}"))
    metric_logger.add_meter("class_error", SmoothedValue(window_size=1, fmt="{value:.2f}"))

    for step, (samples, targets) in enumerate(metric_logger.log_every(data_loader, print_freq, f"Epoch: [{epoch}]")):
        samples, targets = _to_device(samples, targets, device)
        loss_dict = criterion(model(samples), targets)
        total = weighted_sum(loss_dict, criterion.weight_dict)
        logs = _read_losses(loss_dict, criterion.weight_dict)
        if not math.isfinite(logs["loss"]):
            images = [int(target["image_id"]) for target in targets]
            raise FloatingPointError(
                f"the loss is {logs['loss']} in epoch {epoch}, step {step}, images {images}, parts "
                f"{ {name: logs[name] for name in criterion.weight_dict if name in logs} }: "
                "lower --lr or --clip_max_norm"
            )

        optimizer.zero_grad()
        total.backward()
        if max_norm > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()

        metric_logger.update(**logs, lr=optimizer.param_groups[0]["lr"])
        if lr_scheduler is not None:
            lr_scheduler.step()
        if step + 1 == max_steps:
            break

    metric_logger.synchronize_between_processes()
    get_logger().info(f"Averaged stats: {metric_logger}")
    return {name: meter.global_avg for name, meter in metric_logger.meters.items()}


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
) -> tuple[dict[str, Any], CocoEvaluator]:
    """Losses and COCO's numbers over every batch of `data_loader`.

    Args:
        postprocessors: `bbox` turns outputs into boxes.
        base_ds: ground truth, crowds included.
        output_dir: kept for its published place; detection writes nothing here.
        evaluator: who computes AP, see `CocoEvaluator`.

    Returns:
        (stats, evaluator): the meters' means as in `train_one_epoch`, and `coco_eval_bbox`, the 12 numbers.
    """
    model.eval()
    criterion.eval()
    metric_logger = MetricLogger(delimiter="  ", shown=SHOWN)
    metric_logger.add_meter("class_error", SmoothedValue(window_size=1, fmt="{value:.2f}"))
    coco_evaluator = CocoEvaluator(base_ds, ["bbox"], backend=evaluator)

    for samples, targets in metric_logger.log_every(data_loader, print_freq, "Test:"):
        samples, targets = _to_device(samples, targets, device)
        outputs = model(samples)
        metric_logger.update(**_read_losses(criterion(outputs, targets), criterion.weight_dict))
        sizes = torch.stack([target["orig_size"] for target in targets])  # [B, 2]
        results = postprocessors["bbox"](outputs, sizes)
        coco_evaluator.update({int(target["image_id"]): result for target, result in zip(targets, results)})

    metric_logger.synchronize_between_processes()
    get_logger().info(f"Averaged stats: {metric_logger}")
    coco_evaluator.synchronize_between_processes()
    coco_evaluator.accumulate()
    coco_evaluator.summarize()
    stats: dict[str, Any] = {name: meter.global_avg for name, meter in metric_logger.meters.items()}
    stats["coco_eval_bbox"] = coco_evaluator.coco_eval["bbox"].stats.tolist()
    return stats, coco_evaluator


def weighted_sum(loss_dict: dict[str, Tensor], weight_dict: dict[str, float]) -> Tensor:
    """The loss to optimise: the named losses times their weights; logs are not in it."""
    return sum(loss_dict[name] * weight for name, weight in weight_dict.items() if name in loss_dict)


def _read_losses(loss_dict: dict[str, Tensor], weight_dict: dict[str, float]) -> dict[str, float]:
    """Means over all processes as numbers, under the published names; the host waits for the device once."""
    reduced = reduce_dict({name: value.detach() for name, value in loss_dict.items()})
    values = dict(zip(reduced, torch.stack(list(reduced.values())).tolist()))
    scaled = {name: value * weight_dict[name] for name, value in values.items() if name in weight_dict}
    unscaled = {f"{name}_unscaled": value for name, value in values.items()}
    return {"loss": sum(scaled.values()), **scaled, **unscaled, "class_error": values["class_error"]}


def _to_device(samples: Any, targets: Sequence[dict[str, Tensor]], device: torch.device) -> tuple[Any, list[dict]]:
    """The batch on `device`; `image_id` stays where it is, since only the host reads it."""
    moved = [
        {name: v if name == "image_id" else v.to(device, non_blocking=True) for name, v in target.items()}
        for target in targets
    ]
    return samples.to(device, non_blocking=True), moved
