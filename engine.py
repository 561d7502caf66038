"""The two loops: one epoch of training, one evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from pycocotools.coco import COCO
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from datasets.targets import check_targets
from evaluation.coco_eval import CocoEvaluator
from evaluation.evaluation import Evaluation
from util.compute.accumulation import Parts, add_shares
from util.compute.precision import FLOAT32, Precision
from util.dist import reduce_dict
from util.logging import get_logger
from util.meters import MetricLogger, SmoothedValue
from util.progress import length_of

SHOWN = ("lr", "loss", "loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice", "class_error")
Targets = Sequence[dict[str, Tensor]]


class Window(NamedTuple):
    """The part of an epoch to train.

    Attributes:
        first: index of the first batch that the loader yields; the batches before it are done.
        stop: end before this batch; None: at the end of the loader.
        meters: `MetricLogger.state_dict()` after batch `first - 1`; None at the start of an epoch.
    """

    first: int = 0
    stop: int | None = None
    meters: Mapping[str, Any] | None = None


class Monitor:
    """What surrounds a loop: requests to stop or save, curves, diagnosis of non-finite numbers. This one does nothing.

    In a process group the requests of all processes are combined, so that all respond after the same step.
    """

    def requests(self) -> dict[str, float]:
        """Requests of this process: name → 1.0 if made, else 0.0. The names are the same on all processes."""
        return {}

    def observe(
        self, step: int, values: Mapping[str, float], optimizer: torch.optim.Optimizer, meters: MetricLogger
    ) -> None:
        """After each optimizer step: `values` are the step's losses and `grad_norm`."""

    def respond(self, requested: set[str], step: int | None = None, meters: MetricLogger | None = None) -> None:
        """Fulfil the requests of all processes; may raise to end the loop.

        Args:
            requested: names of the requests that any process made.
            step: steps of the epoch that are done; None in an evaluation.
            meters: of the epoch so far; None in an evaluation.
        """

    def explain(self, what: str, model: nn.Module, parts: Parts, criterion: nn.Module, epoch: int, step: int) -> str:
        """The message for numbers that are not finite; `what` says which. All processes call it after the same step.

        Args:
            parts: the step's batches, on the device.
        """
        return f"{what}, in epoch {epoch}, step {step}, images {_image_ids(parts.targets)}"


WHOLE_EPOCH = Window()
UNMONITORED = Monitor()


def train_step(
    model: nn.Module,
    criterion: nn.Module,
    samples: Any,
    targets: Targets,
    optimizer: torch.optim.Optimizer,
    max_norm: float = 0.1,
) -> dict[str, Tensor]:
    """The heart of `train_one_epoch`: learn from one batch, which is on the model's device.

    `train_one_epoch` gives the same losses and weights to the last bit. It splits these lines, to read the losses
    before the optimizer's step and to refuse the step if they are not finite, and to serve half types and several
    batches per step.
    """
    optimizer.zero_grad()
    loss_dict = criterion(model(samples), targets)
    weighted_sum(loss_dict, criterion.weight_dict).backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return loss_dict


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
    window: Window = WHOLE_EPOCH,
    print_freq: int = 10,
    monitor: Monitor = UNMONITORED,
    precision: Precision = FLOAT32,
) -> dict[str, float]:
    """Train on every batch of `data_loader` once. What is done with a batch is `train_step`, with checks around it.

    Args:
        model, criterion: on `device`.
        data_loader: batches of (NestedTensor, targets), see `datasets.loader`; or the `Parts` of each step, whose
            losses and gradients add up to those of one large batch, see `util.compute.accumulation`.
        optimizer: over the model's trainable parameters.
        epoch: for messages.
        max_norm: gradient norm over all parameters to clip at; 0 clips nothing.
        lr_scheduler: stepped after every optimizer step, if given; so not after a step that is skipped.
        window: the steps to train; `data_loader` starts with batch `window.first`.
        print_freq: steps between progress lines.
        monitor: called around every step.
        precision: of the forward. With float16, a step whose gradients overflow is skipped.

    Returns:
        Each meter's mean over the epoch and all processes: `loss` (weighted total), the weighted losses by name,
        every unweighted value as `NAME_unscaled`, `class_error`, `lr`.

    Raises:
        FloatingPointError: a loss or gradient is not finite on any process; no process has taken that step. With
            float16 gradients may overflow, unless they do so without end.
        ValueError: an invalid target; the message names its image and annotation.
    """
    model.train()
    criterion.train()
    meters = _new_meters()
    meters.add_meter("lr", SmoothedValue(window_size=1, fmt="{value:.6f}"))
    if window.meters is not None:
        meters.load_state_dict(window.meters)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    step_schedule = lr_scheduler.step if lr_scheduler is not None else _keep_rates

    length = min((n for n in (length_of(data_loader), window.stop) if n is not None), default=None)
    header = f"Epoch: [{epoch}]"
    batches = meters.log_every(data_loader, print_freq, header, start=window.first, length=length, brief=True)
    for step, batch in enumerate(batches, start=window.first):
        parts = Parts.of(batch)
        check_targets(parts.targets, criterion.num_classes)
        optimizer.zero_grad()
        try:
            loss_dict = _losses_and_gradients(model, criterion, parts, device, precision)
            precision.unscale(optimizer)
            grad_norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            logs, requested = _read_losses(loss_dict, criterion.weight_dict, monitor.requests(), grad_norm=grad_norm)
            accepted = precision.accepts(logs["loss"], logs["grad_norm"])
        except FloatingPointError as error:
            parts = Parts(_to_device(*part, device) for part in parts)
            with precision.autocast():
                what = monitor.explain(str(error), model, parts, criterion, epoch, step)
            raise FloatingPointError(what) from error
        if accepted:
            if max_norm > 0:
                torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, grad_norm)
            optimizer.step()
        else:
            del logs["grad_norm"]

        meters.update(**logs, lr=optimizer.param_groups[0]["lr"])
        monitor.observe(step, logs, optimizer, meters)
        if accepted:
            step_schedule()
        monitor.respond(requested, step + 1, meters)
        if step + 1 == window.stop:
            break

    batches.close()  # ends the progress with its summary, also after a break
    meters.synchronize_between_processes()
    get_logger().info(meters.summary())
    return meters.averages()


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
    evaluation: Evaluation | None = None,
    print_freq: int = 10,
    monitor: Monitor = UNMONITORED,
    precision: Precision = FLOAT32,
) -> tuple[dict[str, Any], CocoEvaluator]:
    """Losses and COCO's numbers over every batch of `data_loader`.

    Args:
        postprocessors: `bbox` turns outputs into boxes; `segm` adds masks, and `panoptic` adds panoptic maps, which are
            compared with the loader's data set, a `CocoPanoptic`.
        base_ds: COCO's ground truth, crowds included.
        output_dir: panoptic maps are written to `panoptic_eval/` in it; empty to write none.
        evaluation: built once for many evaluations; the default builds one from the arguments above.
        print_freq: steps between progress lines.
        monitor: its requests are answered after every batch.
        precision: of the forward.

    Returns:
        (stats, evaluator): the meters' means as in `train_one_epoch`; `coco_eval_bbox` and `coco_eval_masks`, the 12
        numbers of each; `PQ_all`, `PQ_th` and `PQ_st`, each {"pq", "sq", "rq", "n"}.

    Raises:
        FloatingPointError: an output or loss is not finite on any process.
        ValueError: an invalid target, or panoptic ground truth that cannot be evaluated.
    """
    model.eval()
    criterion.eval()
    if evaluation is None:
        evaluation = Evaluation(postprocessors, base_ds, data_loader.dataset, output_dir=output_dir)
    evaluation.reset()
    meters = _new_meters()
    for samples, targets in meters.log_every(data_loader, print_freq, "Test:", brief=True):
        check_targets(targets, criterion.num_classes)
        samples, targets = _to_device(samples, targets, device)
        with precision.autocast():
            outputs = model(samples)
        try:
            loss_dict = criterion(outputs, targets, padded_size=padded_size(samples))
            logs, requested = _read_losses(loss_dict, criterion.weight_dict, monitor.requests())
            if not math.isfinite(logs["loss"]):
                raise FloatingPointError(f"the loss is {logs['loss']}")
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}, in evaluation, images {_image_ids(targets)}") from error
        meters.update(**logs)
        evaluation.update(outputs, targets, padded_size(samples))
        monitor.respond(requested)

    meters.synchronize_between_processes()
    get_logger().info(meters.summary())
    return meters.averages() | evaluation.finish(), evaluation.coco


def padded_size(samples: Any) -> tuple[int, int]:
    """(height, width) of a batch with its padding."""
    return tuple(samples.tensors.shape[-2:])


def trial_step(
    model: nn.Module, criterion: nn.Module, device: torch.device, precision: Precision = FLOAT32
) -> Callable[[Any, Targets], None]:
    """Forward, loss and backward of one batch as in training, but on this process only and without an update."""

    def step(samples: Any, targets: Targets) -> None:
        samples, targets = _to_device(samples, targets, device)
        num_boxes = max(1.0, float(sum(len(target["labels"]) for target in targets)))
        with precision.autocast():
            outputs = model(samples)
        losses = criterion(outputs, targets, num_boxes=num_boxes, padded_size=padded_size(samples))
        weighted_sum(losses, criterion.weight_dict).backward()

    return step


def weighted_sum(loss_dict: dict[str, Tensor], weight_dict: dict[str, float]) -> Tensor:
    """The loss to optimise: the named losses times their weights. Values without a weight are only logged."""
    return sum(loss_dict[name] * weight for name, weight in weight_dict.items() if name in loss_dict)


def _losses_and_gradients(
    model: nn.Module, criterion: nn.Module, parts: Parts, device: torch.device, precision: Precision
) -> dict[str, Tensor]:
    """Forward, loss and backward of each part of a step. The gradients add up in the parameters.

    Returns:
        What the criterion gives for the batch of all parts, without gradients.
    """
    several = {"whole": parts.targets} if len(parts) > 1 else {}
    sums: dict[str, Tensor] = {}
    for samples, targets in parts.in_turn(model):
        samples, targets = _to_device(samples, targets, device)
        with precision.autocast():
            outputs = model(samples)
        loss_dict = criterion(outputs, targets, padded_size=padded_size(samples), **several)
        precision.scale(weighted_sum(loss_dict, criterion.weight_dict)).backward()
        sums = add_shares(sums, loss_dict)
        del outputs, loss_dict  # not to be kept beside those of the next part
    return sums


def _new_meters() -> MetricLogger:
    meters = MetricLogger(delimiter="  ", shown=SHOWN, watch_only=("grad_norm",))
    meters.add_meter("class_error", SmoothedValue(window_size=1, fmt="{value:.2f}"))
    return meters


def _keep_rates() -> None:
    """Do nothing: the schedule, if any, steps once per epoch."""


def _read_losses(
    loss_dict: dict[str, Tensor], weight_dict: dict[str, float], requests: dict[str, float], **more: Tensor
) -> tuple[dict[str, float], set[str]]:
    """Means over all processes as numbers, under the published names. The host waits for the device once.

    The requests are sent with them, so that every process sees them after the same step.

    Returns:
        (numbers, names of the requests that any process made).
    """
    names, device = list(loss_dict), loss_dict["class_error"].device
    values = {name: value.detach() for name, value in {**loss_dict, **more}.items()}
    values |= {f"request_{name}": torch.full([], made, device=device) for name, made in requests.items()}
    reduced = reduce_dict(values)
    numbers = dict(zip(reduced, torch.stack(list(reduced.values())).tolist()))
    scaled = {name: numbers[name] * weight_dict[name] for name in names if name in weight_dict}
    unscaled = {f"{name}_unscaled": numbers[name] for name in names}
    watched = {name: numbers[name] for name in more}
    logs = {"loss": sum(scaled.values()), **scaled, **unscaled, "class_error": numbers["class_error"], **watched}
    return logs, {name for name in requests if numbers[f"request_{name}"]}


def _image_ids(targets: Targets) -> list[int]:
    return [int(target["image_id"]) for target in targets]


def _to_device(samples: Any, targets: Targets, device: torch.device) -> tuple[Any, list[dict]]:
    """The batch on `device`; `image_id` stays on the CPU, where it is read."""
    moved = [
        {name: v if name == "image_id" else v.to(device, non_blocking=True) for name, v in target.items()}
        for target in targets
    ]
    return samples.to(device, non_blocking=True), moved
