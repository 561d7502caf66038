"""The published code in a fresh process, in its folder: `python -m benchmarks.subjects.published JSON`.

Only published names are used: `models.build_model`, `util.misc.NestedTensor`, and keys of its dictionaries. `models`
and `util` come from the working directory, so nothing of ours but `benchmarks.common` is imported here. The published
code was written for torch 1.5 and torchvision 0.6; `prepare_torchvision` bridges what changed since.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
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
)

MODELS, MODELS_BACKBONE, MISC = "models", "models.backbone", "util.misc"  # in the working directory, not ours
SETTINGS: dict[str, Any] = {  # the published flags that `build_model` reads, with their defaults
    **{"lr": 1e-4, "lr_backbone": 1e-5, "weight_decay": 1e-4, "clip_max_norm": 0.1, "frozen_weights": None},
    **{"backbone": "resnet50", "dilation": False, "position_embedding": "sine", "enc_layers": 6, "dec_layers": 6},
    **{"dim_feedforward": 2048, "hidden_dim": 256, "dropout": 0.1, "nheads": 8, "num_queries": 100, "pre_norm": False},
    **{"masks": False, "aux_loss": True, "set_cost_class": 1, "set_cost_bbox": 5, "set_cost_giou": 2},
    **{"mask_loss_coef": 1, "dice_loss_coef": 1, "bbox_loss_coef": 5, "giou_loss_coef": 2, "eos_coef": 0.1},
    **{"dataset_file": "coco", "device": "cpu"},
}


def prepare_torchvision() -> None:
    """Let code of 2020 import today's torchvision: it compares the version as a number, and one function moved."""
    import torchvision

    torchvision.__version__ = "0.9.0"  # the code takes "0.29" for 0.2
    torchvision.ops.misc.interpolate = F.interpolate


def build(work: Work) -> tuple[nn.Module, nn.Module, argparse.Namespace]:
    """(model, criterion, settings) from the working directory, with random weights."""
    models = importlib.import_module(MODELS)
    backbone = importlib.import_module(MODELS_BACKBONE)
    backbone.is_main_process = lambda: False  # the first process would download ImageNet's weights
    args = argparse.Namespace(**SETTINGS)
    vars(args).update(backbone=work.backbone, num_queries=work.queries, dec_layers=work.layers, device=work.device)
    vars(args).update(masks=work.masks, dataset_file="coco_panoptic" if work.masks else "coco")
    vars(args).update(backbone_weights="none")  # of a stand-in: this project's own code under the published names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, criterion, _ = models.build_model(args)
    set_norms(model)
    return model, criterion, args


def batch_of(work: Work) -> Any:
    """The images as the published code takes them."""
    return importlib.import_module(MISC).NestedTensor(*made_images(work))


def losses_of(criterion: nn.Module, outputs: Mapping[str, Any], targets: list[dict[str, Tensor]]) -> Tensor:
    """The weighted sum, as the published loop computes it."""
    losses, weights = criterion(outputs, targets), criterion.weight_dict
    return sum(losses[name] * weights[name] for name in losses if name in weights)


def inference(work: Work) -> tuple[list[float], list[float]]:
    """(seconds, numbers of the result) of forward passes."""
    model, samples = build(work)[0].eval(), batch_of(work)
    names = ["pred_logits", "pred_boxes", *(["pred_masks"] if work.masks else [])]

    @torch.inference_mode()
    def step() -> Mapping[str, Tensor]:
        with autocast(work):
            outputs = model(samples)
            return {name: outputs[name] for name in names}

    return repeated(work, step), numbers_of(*step().values())


def training(work: Work) -> tuple[list[float], list[float]]:
    """(seconds, the last loss) of training steps with the published optimizer and clipping."""
    model, criterion, args = build(work)
    samples, targets = batch_of(work), made_targets(work)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if "backbone" not in name]},
        {"params": [p for name, p in named if "backbone" in name], "lr": args.lr_backbone},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, weight_decay=args.weight_decay)
    model.train()
    criterion.train()
    losses: list[float] = []

    def step() -> None:
        loss = losses_of(criterion, model(samples), targets)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip_max_norm)
        optimizer.step()

    return repeated(work, step), losses[-1:]


def criterion(work: Work) -> tuple[list[float], list[float]]:
    """(seconds, loss) of matching and losses of all decoder layers, forward and backward."""
    _, criterion, _ = build(work)
    (last, *others), targets = made_predictions(work), made_targets(work)

    def step() -> Tensor:
        loss = losses_of(criterion, {**last, "aux_outputs": others}, targets)
        loss.backward()
        return loss.detach()

    return repeated(work, step), [step().item()]


if __name__ == "__main__":
    prepare_torchvision()
    do_work(inference, training, criterion, code=inspect.getfile(importlib.import_module(MODELS)))
