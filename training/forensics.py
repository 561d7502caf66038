"""Where a number stopped being finite: the batch that did it is run again under watch, described and saved."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.module_watch import ModuleWatch, count_non_finite, find_non_finite_tensor
from training.undisturbed import undisturbed
from util.checkpoint import save_checkpoint
from util.dist import all_gather, get_rank
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list

Samples = NestedTensor | Sequence[Tensor] | Tensor
Targets = Sequence[Mapping[str, Tensor]]


@dataclass(frozen=True)
class Finding:
    """What is not finite.

    Attributes:
        kind: "image", "target", "output", "loss" or "gradient", the first of them in the order of the computation that
            is not finite; "nothing" when all of them are.
        name: the culprit: "image 3", "transformer.encoder.layers.2.linear1 (Linear)", "loss_giou_1", or the parameter
            of the gradient, "transformer.decoder.norm.weight"; empty for "nothing".
        sentence: all of it in words, without a full stop.
        parameter: for an output, the parameter or buffer in that module that is not finite itself; else empty.
    """

    kind: str
    name: str
    sentence: str
    parameter: str = ""


@torch.no_grad()
def find_non_finite(
    model: nn.Module, samples: Samples, targets: Targets | None = None, criterion: nn.Module | None = None
) -> Finding:
    """Run the batch once more and name the first thing that is not finite.

    The order is the computation's: images, target boxes, module outputs (the first module whose inputs are finite and
    whose output is not; of nested ones the innermost), losses, gradients. Gradients are computed, for this batch
    alone, only where those that the parameters hold are not finite.

    The process needs no other one. Weights, gradients, buffers, modes and generators stay as they are. Dropout draws
    anew, so a rare overflow may not come again. To be called under the autocast of the step that failed, if any.

    Args:
        model: wrapped for several processes or not.
        samples: as the model takes them, on its device.
        targets: on the same device; wanted for losses and gradients.
        criterion: `SetCriterion`, or what takes `num_boxes` like it.
    """
    model = _unwrap(model)
    finding = _find_in_images(samples, targets) or _find_in_targets(targets)
    if finding is not None:
        return finding
    watch, outputs = ModuleWatch(model), None
    with undisturbed(model), watch:
        try:
            outputs = model(samples)
        except (RuntimeError, ValueError, ArithmeticError):  # what runs on behind the first bad number may give up
            if not watch.culprit:
                raise
    if watch.culprit and (outputs is None or find_non_finite_tensor(outputs) is not None):
        return Finding("output", watch.culprit, watch.sentence, watch.parameter)
    if criterion is not None and targets is not None:
        finding = _find_in_losses(criterion, outputs, targets)
    return (
        finding
        or _find_in_gradients(model, samples, targets, criterion, watch.order)
        or Finding("nothing", "", "run once more, everything is finite")
    )


def save_batch(
    path: str | os.PathLike[str],
    samples: Samples,
    targets: Targets,
    *,
    model: nn.Module,
    epoch: int,
    step: int,
    message: str,
    rank: int = 0,
) -> None:
    """Save what it takes to study the failure later, for `load_checkpoint` to read.

    The file holds `images` [B, 3, H, W], `mask` (True = padding) or None, `targets`, the weights as `model`, `epoch`,
    `step`, `message` and `rank`. To go on from it:

        batch = load_checkpoint(path)
        model.load_state_dict(batch["model"])  # `load_weights` refuses weights that are not finite
        find_non_finite(model, NestedTensor(batch["images"], batch["mask"]), batch["targets"], criterion)

    Raises:
        OSError: the file cannot be written.
    """
    if not isinstance(samples, NestedTensor):
        samples = nested_tensor_from_tensor_list(samples)
    content = {"images": samples.tensors, "mask": samples.mask, "targets": list(targets)}
    content |= {"model": _unwrap(model).state_dict(), "epoch": epoch, "step": step, "message": message, "rank": rank}
    save_checkpoint(path, content)


def report_non_finite(
    what: str,
    model: nn.Module,
    samples: Samples,
    targets: Targets,
    criterion: nn.Module | None = None,
    *,
    epoch: int,
    step: int,
    output_dir: str | os.PathLike[str] = "",
) -> str:
    """The message of a training that stops: step, images, culprit, where the batch lies, what to do.

    All processes of a group call it at the same step, and each gets the findings of all: the first one's message
    names what went wrong on another. The batch goes to `OUTPUT_DIR/non_finite_rank{r}.pth` on the processes that found
    something, on all if none did. Checkpoints are not touched, and no failure in here takes the place of the message.

    Args:
        what: what was seen, as in "the loss is nan".
        model, samples, targets, criterion: see `find_non_finite`.
        output_dir: empty to save nothing.
    """
    rank = get_rank()
    images = [int(target["image_id"]) for target in targets if "image_id" in target]
    try:
        finding = find_non_finite(model, samples, targets, criterion)
    except Exception as error:  # a study that fails must not hide the message, nor keep the other processes waiting
        finding = Finding("nothing", "", f"running it once more failed ({type(error).__name__}: {error})")
    found = all_gather((finding.kind, f"images {images}: {finding.sentence}"))
    culprits = [index for index, (kind, _) in enumerate(found) if kind != "nothing"] or list(range(len(found)))

    place = ""
    if output_dir and rank in culprits:
        place = str(Path(output_dir) / f"non_finite_rank{rank}.pth")
        try:
            message = f"{what}, in epoch {epoch}, step {step}, {found[rank][1]}"
            save_batch(place, samples, targets, model=model, epoch=epoch, step=step, message=message, rank=rank)
        except Exception as error:  # as above; a full disk comes as almost any type
            place = f"no file, since {place} cannot be written ({error})"
    places = [each for each in all_gather(place) if each]  # also: nobody leaves while another one still writes

    several = len(found) > 1
    where = "; ".join(f"process {i}, {found[i][1]}" if several else found[i][1] for i in culprits)
    kept = f" Batch and weights are in {', '.join(places)}." if places else ""
    return (
        f"{what}, in epoch {epoch}, step {step}, {where}.{kept} Checkpoints are as they were: look at these images and "
        "their boxes, then go on from the last one with a lower --lr, or with gradients clipped (--clip_max_norm, "
        "published: 0.1)"
    )


def _unwrap(model: nn.Module) -> nn.Module:
    """The module inside of DistributedDataParallel, DataParallel or torch.compile's wrapper."""
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel) or hasattr(model, "_orig_mod"):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
    return model


def _find_in_images(samples: Samples, targets: Targets | None) -> Finding | None:
    for index, image in enumerate(samples.tensors if isinstance(samples, NestedTensor) else samples):
        if not image.isfinite().all():
            known = targets is not None and "image_id" in targets[index]
            named = f" (image_id {int(targets[index]['image_id'])})" if known else ""
            sentence = f"image {index} of the batch{named} is not finite itself ({count_non_finite(image)})"
            return Finding("image", f"image {index}", sentence)
    return None


def _find_in_targets(targets: Targets | None) -> Finding | None:
    for index, target in enumerate(targets or ()):
        if not target["boxes"].isfinite().all():
            sentence = f"the boxes of image {index} of the batch are not finite ({count_non_finite(target['boxes'])})"
            return Finding("target", f"image {index}", sentence)
    return None


def _run_criterion(criterion: nn.Module, outputs: Any, targets: Targets) -> dict[str, Tensor]:
    """Losses and logs, weighted where there is a weight; given the number of boxes, it waits for no other process."""
    num_boxes = max(1.0, float(sum(len(target["labels"]) for target in targets)))
    weights = getattr(criterion, "weight_dict", {})
    losses = criterion(outputs, targets, num_boxes=num_boxes)
    return {name: value * weights.get(name, 1) for name, value in losses.items()}


def _find_in_losses(criterion: nn.Module, outputs: Any, targets: Targets) -> Finding | None:
    try:
        losses = _run_criterion(criterion, outputs, targets)
    except FloatingPointError as error:
        return Finding("loss", "matching", f"the outputs are finite, but they cannot be matched: {error}")
    for name, value in losses.items():
        if not value.isfinite().all():
            return Finding("loss", name, f"the outputs are finite, but {name}, times its weight, is {value.item()}")
    return None


def _find_in_gradients(
    model: nn.Module, samples: Samples, targets: Targets | None, criterion: nn.Module | None, order: Sequence[str]
) -> Finding | None:
    """Backward runs against the order of the modules: the last of the bad gradients is the first that it met."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = {name: parameter.grad for name, parameter in trained.items()}
    if find_non_finite_tensor(gradients) is None:
        return _find_overflowing_norm(gradients)
    if criterion is not None and targets is not None:
        # Those held may be a mean over processes, or clipped: one NaN has then spread to all.
        with torch.enable_grad(), undisturbed(model):
            losses = _run_criterion(criterion, model(samples), targets)
            total = sum(losses[name] for name in getattr(criterion, "weight_dict", losses) if name in losses)
            gradients = dict(zip(trained, torch.autograd.grad(total, list(trained.values()), allow_unused=True)))
        if find_non_finite_tensor(gradients) is None:
            return Finding("nothing", "", "the gradients are not finite, but those of this batch, computed anew, are")

    ended = {name: place for place, name in enumerate(order)}  # the last call of each module
    there = [(name, gradient) for name, gradient in gradients.items() if gradient is not None]
    there.sort(key=lambda entry: ended.get(entry[0].rpartition(".")[0], -1))  # -1: used without a call of its module
    bad = [place for place, (_, gradient) in enumerate(there) if not gradient.isfinite().all()]
    name, gradient = there[bad[-1]]
    sentence = f"outputs and losses are finite, but the gradient of {name} is not ({count_non_finite(gradient)})"
    if len(bad) > 1:
        sentence += f", nor are {len(bad) - 1} of the {len(there) - 1} others"
    if bad[-1] + 1 < len(there):
        sentence += f"; nearer to the loss, that of {there[bad[-1] + 1][0]} is"
    return Finding("gradient", name, sentence)


def _find_overflowing_norm(gradients: Mapping[str, Tensor | None]) -> Finding | None:
    """Finite gradients can be too large for the sum of their squares."""
    there = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    if not there or torch.nn.utils.get_total_norm(list(there.values())).isfinite():
        return None
    name, largest = max(((name, value.abs().max().item()) for name, value in there.items()), key=lambda entry: entry[1])
    sentence = f"every gradient is finite, but their norm overflows: that of {name} reaches {largest:.3g}"
    return Finding("gradient", name, sentence)
