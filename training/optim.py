"""Parameter groups and learning-rate schedules (paper, section A.4)."""

from __future__ import annotations

import argparse
import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR


def param_groups(model: nn.Module, lr: float, lr_backbone: float) -> list[dict]:
    """Trainable parameters in two groups: everything except the backbone at `lr`, the backbone at `lr_backbone`.

    Norms and biases are included: the published weight decay covers everything.
    """
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for name, parameter in trainable if "backbone" not in name], "lr": lr},
        {"params": [parameter for name, parameter in trainable if "backbone" in name], "lr": lr_backbone},
    ]


def build_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.AdamW:
    """AdamW over the two groups, fused where the device supports it."""
    groups = param_groups(model, args.lr, args.lr_backbone)
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=args.lr, weight_decay=args.weight_decay, fused=fused)


def build_lr_scheduler(
    optimizer: torch.optim.Optimizer, args: argparse.Namespace, steps_per_epoch: int
) -> tuple[LRScheduler, bool]:
    """The learning-rate schedule that the command line sets.

    Args:
        optimizer: the learning rates of its groups are the peak rates.
        args: `lr_schedule`, `lr_drop`, `warmup_steps`, `epochs`, `max_steps`.
        steps_per_epoch: training steps of one epoch.

    Returns:
        (scheduler, per_step): step it after every optimizer step if `per_step`, else after every epoch. The published
        schedule, without warm-up, is per epoch and its state is the published one.

    Raises:
        ValueError: the warm-up is longer than the training.
    """
    if args.lr_schedule == "step" and args.warmup_steps == 0:
        return StepLR(optimizer, args.lr_drop), False
    total = args.epochs * steps_per_epoch
    if args.max_steps is not None:
        total = min(total, args.max_steps)
    if args.warmup_steps >= total:
        raise ValueError(f"--warmup_steps {args.warmup_steps} must be below the {total} steps of the training")

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / (args.warmup_steps + 1))
        if args.lr_schedule == "cosine":
            done = max(0, step - args.warmup_steps) / (total - args.warmup_steps)
            return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return warm * 0.1 ** (step // (steps_per_epoch * args.lr_drop))

    return LambdaLR(optimizer, factor), True
