"""Hugging Face's DETR (`transformers`) with random weights: `python -m benchmarks.subjects.huggingface JSON`."""

from __future__ import annotations

import torch
import transformers
from torch import Tensor, nn
from transformers import DetrConfig, DetrForObjectDetection, DetrForSegmentation
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

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

FROZEN = ("conv1", "bn1", "layer1")  # of the backbone, as in the published training


def configuration(work: Work) -> DetrConfig:
    """The published settings."""
    return DetrConfig(
        use_timm_backbone=True,
        backbone=work.backbone,
        use_pretrained_backbone=False,
        num_labels=work.num_classes,
        num_queries=work.queries,
        decoder_layers=work.layers,
        auxiliary_loss=work.task == "training",
    )


def build(work: Work) -> nn.Module:
    """The model; the layers that DETR freezes are frozen, unless the flag `train_all` is set."""
    model = (DetrForSegmentation if work.masks else DetrForObjectDetection)(configuration(work))
    set_norms(model)
    frozen = () if (work.flags or {}).get("train_all") else FROZEN
    for name, parameter in model.named_parameters():
        if "backbone" in name and any(f".{part}." in name for part in frozen):
            parameter.requires_grad_(False)
    model = model.to(work.device)
    return torch.compile(model) if work.compile else model


def labels_of(work: Work) -> list[dict[str, Tensor]]:
    """Targets under the names that this model reads."""
    targets = made_targets(work)
    return [
        {name: v for name, v in t.items() if name in ("boxes", "masks")} | {"class_labels": t["labels"]}
        for t in targets
    ]


def inference(work: Work) -> tuple[list[float], list[float]]:
    """(seconds, numbers of the result) of forward passes."""
    model, (images, mask) = build(work).eval(), made_images(work)

    @torch.inference_mode()
    def step() -> Tensor:
        with autocast(work):
            return model(pixel_values=images, pixel_mask=(~mask).long()).logits

    return repeated(work, step), numbers_of(step())


def training(work: Work) -> tuple[list[float], list[float]]:
    """(seconds, the last loss) of training steps with the published optimizer and clipping."""
    model, (images, mask), labels = build(work).train(), made_images(work), labels_of(work)
    backbone = [p for name, p in model.named_parameters() if "backbone" in name and p.requires_grad]
    others = [p for name, p in model.named_parameters() if "backbone" not in name]
    groups = [{"params": others}, {"params": backbone, "lr": 1e-5}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, weight_decay=1e-4)
    losses: list[Tensor] = []

    def step() -> None:
        with autocast(work):
            loss = model(pixel_values=images, pixel_mask=(~mask).long(), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        losses.append(loss.detach())

    return repeated(work, step), [losses[-1].item()]


def criterion(work: Work) -> tuple[list[float], list[float]]:
    """(seconds, loss) of matching and losses of all decoder layers, forward and backward."""
    settings, layers, labels = configuration(work), made_predictions(work), labels_of(work)
    settings.auxiliary_loss = True
    order = [*layers[1:], layers[0]]  # here the last layer comes last

    def step() -> Tensor:
        logits = torch.stack([layer["pred_logits"] for layer in order])
        boxes = torch.stack([layer["pred_boxes"] for layer in order])
        loss = ForObjectDetectionLoss(logits[-1], labels, work.device, boxes[-1], settings, logits, boxes)[0]
        loss.backward()
        return loss.detach()

    return repeated(work, step), [step().item()]


if __name__ == "__main__":
    do_work(inference, training, criterion, transformers=transformers.__version__)
