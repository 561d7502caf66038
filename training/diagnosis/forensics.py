"""Find the cause of a NaN or infinity: run the batch again with hooks, describe the cause, save batch and weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.diagnosis.module_watch import ModuleWatch, count_non_finite, find_non_finite_tensor
from util.checkpoint import save_checkpoint
from util.dist import all_gather, get_rank
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list
from util.rng import undisturbed

Samples = NestedTensor | Sequence[Tensor] | Tensor
Targets = Sequence[Mapping[str, Tensor]]


@dataclass(frozen=True)
class Finding:
    """The first thing that is not finite.

    Attributes:
        kind: "image", "target", "output", "loss" or "gradient", whichever comes first in the order of computation;
            "nothing" if all are finite.
        name: the culprit: "image 3", "transformer.encoder.layers.2.linear1 (Linear)", "loss_giou_1", or the parameter
            of the gradient, "transformer.decoder.norm.weight"; empty for "nothing".
        sentence: description of the finding, without a full stop.
        parameter: for an output, the module's parameter or buffer that is not finite itself; else empty.
    """

    kind: str
    name: str
    sentence: str
    parameter: str = ""


@torch.no_grad()
def find_non_finite(
    model: nn.Module, samples: Samples, targets: Targets | None = None, criterion: nn.Module | None = None
) -> Finding:
    """Run the batch again and name the first thing that is not finite.

    The order is that of computation: images, target boxes, module outputs (the first module whose inputs are finite
    and whose output is not, the innermost one if modules are nested), losses, gradients. The gradients of this batch
    are computed only if those stored in the parameters are not finite.

    No other process is involved. Weights, gradients, buffers, modes and random number generators stay unchanged.
    Dropout draws new masks, so a rare overflow may not recur. Call it under the autocast of the failed step, if any.

    Args:
        model: the model, which may be wrapped in DistributedDataParallel.
        samples: input of the model, on its device.
        targets: on the same device; needed to check losses and gradients.
        criterion: `SetCriterion`, or a module that takes `num_boxes` like it.
    """
    model = _unwrap(model)
    finding = _find_in_images(samples, targets) or _find_in_targets(targets)
    if finding is not None:
        return finding
    watch, outputs = ModuleWatch(model), None
    with undisturbed(model), watch:
        try:
            outputs = model(samples)
        except (RuntimeError, ValueError, ArithmeticError):  # a later module may refuse its non-finite input
            if not watch.culprit:
                raise
    if watch.culprit and (outputs is None or find_non_finite_tensor(outputs) is not None):
        return Finding("output", watch.culprit, watch.sentence, watch.parameter)
    if criterion is not None and targets is not None:
        finding = _find_in_losses(criterion, outputs, targets)
    return (
        finding
        or _find_in_gradients(model, samples, targets, criterion, watch.order)
        or Finding("nothing", "", "when the batch was run again, everything was finite")
    )


def first_non_finite(
    model: nn.Module, batches: Sequence[tuple[Samples, Targets]], criterion: nn.Module | None = None
) -> tuple[Samples, Targets]:
    """The first batch in which `find_non_finite` finds anything or fails; the last batch if there is none.

    No other process is involved: each has batches, and a culprit, of its own.
    """
    for samples, targets in batches[:-1]:
        try:
            if find_non_finite(model, samples, targets, criterion).kind != "nothing":
                return samples, targets
        except Exception:  # `report_non_finite` meets it again and says what it was
            return samples, targets
    return batches[-1]


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
    """Save a batch and the weights, to reproduce the failure later.

    The file, which `load_checkpoint` reads, holds `images` [B, 3, H, W], `mask` (True = padding) or None, `targets`,
    the weights as `model`, `epoch`, `step`, `message` and `rank`. To reproduce the failure:

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
    """Save the batch, and return the message to stop with: step, images, culprit, the saved files, what to do.

    All processes call this after the same step, and each receives the findings of all. Those that found something save
    their batch to `OUTPUT_DIR/non_finite_rank{r}.pth`; if none did, all of them save it. Checkpoints are not touched.
    If this analysis itself fails, the message says so; no error is raised.

    Args:
        what: the observation, such as "the loss is nan".
        model, samples, targets, criterion: see `find_non_finite`.
        epoch, step: where the training stopped.
        output_dir: empty to save nothing.
    """
    rank = get_rank()
    images = [int(target["image_id"]) for target in targets if "image_id" in target]
    try:
        finding = find_non_finite(model, samples, targets, criterion)
    except Exception as error:  # must neither hide the message nor keep the other processes waiting
        finding = Finding("nothing", "", f"running the batch again failed ({type(error).__name__}: {error})")
    found = all_gather((finding.kind, f"images {images}: {finding.sentence}"))
    culprits = [index for index, (kind, _) in enumerate(found) if kind != "nothing"] or list(range(len(found)))

    place = ""
    if output_dir and rank in culprits:
        place = str(Path(output_dir) / f"non_finite_rank{rank}.pth")
        try:
            message = f"{what}, in epoch {epoch}, step {step}, {found[rank][1]}"
            save_batch(place, samples, targets, model=model, epoch=epoch, step=step, message=message, rank=rank)
        except Exception as error:  # as above; a full disk can raise many types
            place = f"no file, because {place} cannot be written ({error})"
    places = [each for each in all_gather(place) if each]  # this also keeps all processes alive until each has saved

    several = len(found) > 1
    where = "; ".join(f"process {i}, {found[i][1]}" if several else found[i][1] for i in culprits)
    saved = f" Batch and weights are in {', '.join(places)}." if places else ""
    return (
        f"{what}, in epoch {epoch}, step {step}, {where}.{saved} Checkpoints are unchanged: check these images and "
        "their boxes, then resume from the last checkpoint with a lower --lr, or with gradient clipping "
        "(--clip_max_norm; the published value is 0.1)"
    )


def _unwrap(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel, DataParallel or the wrapper of torch.compile."""
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel) or hasattr(model, "_orig_mod"):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
    return model


def _find_in_images(samples: Samples, targets: Targets | None) -> Finding | None:
    for index, image in enumerate(samples.tensors if isinstance(samples, NestedTensor) else samples):
        if not image.isfinite().all():
            has_id = targets is not None and "image_id" in targets[index]
            image_id = f" (image_id {int(targets[index]['image_id'])})" if has_id else ""
            sentence = f"image {index} of the batch{image_id} is not finite ({count_non_finite(image)})"
            return Finding("image", f"image {index}", sentence)
    return None


def _find_in_targets(targets: Targets | None) -> Finding | None:
    for index, target in enumerate(targets or ()):
        if not target["boxes"].isfinite().all():
            sentence = f"the boxes of image {index} of the batch are not finite ({count_non_finite(target['boxes'])})"
            return Finding("target", f"image {index}", sentence)
    return None


def _run_criterion(criterion: nn.Module, outputs: Any, targets: Targets) -> dict[str, Tensor]:
    """Losses, multiplied by their weights, and logged values; with `num_boxes` given, no other process is involved."""
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
            return Finding("loss", name, f"the outputs are finite, but the weighted {name} is {value.item()}")
    return None


def _find_in_gradients(
    model: nn.Module, samples: Samples, targets: Targets | None, criterion: nn.Module | None, order: Sequence[str]
) -> Finding | None:
    """Name the non-finite gradient that backward reached first.

    Backward visits the modules in reverse order, so it is the one of the module that was called last.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = {name: parameter.grad for name, parameter in trained.items()}
    if find_non_finite_tensor(gradients) is None:
        return _find_overflowing_norm(gradients)
    if criterion is not None and targets is not None:
        # The stored ones may be averaged over processes or clipped, which spreads a single NaN to all of them.
        with torch.enable_grad(), undisturbed(model):
            losses = _run_criterion(criterion, model(samples), targets)
            total = sum(losses[name] for name in getattr(criterion, "weight_dict", losses) if name in losses)
            gradients = dict(zip(trained, torch.autograd.grad(total, list(trained.values()), allow_unused=True)))
        if find_non_finite_tensor(gradients) is None:
            return Finding("nothing", "", "the gradients are not finite, but those recomputed for this batch are")

    last_call = {name: index for index, name in enumerate(order)}
    present = [(name, gradient) for name, gradient in gradients.items() if gradient is not None]
    present.sort(key=lambda entry: last_call.get(entry[0].rpartition(".")[0], -1))  # -1: its module is not called
    bad = [index for index, (_, gradient) in enumerate(present) if not gradient.isfinite().all()]
    name, gradient = present[bad[-1]]
    sentence = f"outputs and losses are finite, but the gradient of {name} is not ({count_non_finite(gradient)})"
    if len(bad) > 1:
        sentence += f", nor are {len(bad) - 1} of the {len(present) - 1} others"
    if bad[-1] + 1 < len(present):
        sentence += f"; closer to the loss, the gradient of {present[bad[-1] + 1][0]} is finite"
    return Finding("gradient", name, sentence)


def _find_overflowing_norm(gradients: Mapping[str, Tensor | None]) -> Finding | None:
    """Name the largest gradient if all are finite but the sum of their squares is not."""
    present = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    if not present or torch.nn.utils.get_total_norm(list(present.values())).isfinite():
        return None
    largest = {name: gradient.abs().max().item() for name, gradient in present.items()}
    name = max(largest, key=largest.__getitem__)
    sentence = f"every gradient is finite, but their norm overflows: that of {name} reaches {largest[name]:.3g}"
    return Finding("gradient", name, sentence)
