"""The detectors of `tests/golden/README.md`, built and run once each."""

import logging
import os
import warnings
from argparse import Namespace
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from models import build_model
from tests.helpers.golden_rules import images, load_golden_weights, targets
from util.arguments import get_args_parser
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list

BASE = (
    "--backbone resnet18 --hidden_dim 32 --nheads 4 --dim_feedforward 64 --enc_layers 2 --dec_layers 3"
    " --num_queries 12 --dropout 0.0"
)
CASES = {
    "det": BASE,
    "det_pre_learned": f"{BASE} --pre_norm --position_embedding learned",
    "det_dc5_r50": f"{BASE} --backbone resnet50 --dilation",
    "no_aux": f"{BASE} --no_aux_loss",
    "empty_targets": BASE,
    "segm": f"{BASE} --masks --backbone resnet50 --hidden_dim 128 --nheads 8",
    "panoptic": f"{BASE} --masks --backbone resnet50 --hidden_dim 128 --nheads 8 --dataset_file coco_panoptic",
}
DEVICE = os.environ.get("DETR_TEST_DEVICE", "cpu")
SIZES = [(96, 128), (112, 80)]  # (h, w) of the images
BUILDS = {
    "main_default": "",
    "main_tiny": BASE,
    "main_learned": "--position_embedding learned",
    "main_pre_norm": "--pre_norm",
    "main_frozen_backbone": "--lr_backbone 0",
    "main_masks_panoptic": "--masks --dataset_file coco_panoptic",
}


def parse(flags: str) -> Namespace:
    """Arguments for a build on the CPU without downloads."""
    return get_args_parser().parse_args(f"--device cpu {flags} --backbone_weights none".split())


def build(args: Namespace) -> tuple[nn.Module, nn.Module, dict[str, nn.Module]]:
    """`build_model` without its warning of random frozen layers, which golden weights will overwrite."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            return build_model(args)
        finally:
            logging.disable(logging.NOTSET)


def detector(case: str) -> tuple[nn.Module, nn.Module]:
    """Model, with golden weights and in training mode, and criterion of a case."""
    model, criterion, _ = build(parse(CASES[case]))
    return load_golden_weights(model).train(), criterion.train()


def detector_batch(case: str) -> tuple[NestedTensor, list[dict[str, Tensor]]]:
    """The images and targets of a case."""
    counts = [0, 0] if case == "empty_targets" else [4, 9]
    mask_hw = SIZES if "--masks" in CASES[case] else None
    return nested_tensor_from_tensor_list(images("im", SIZES)), targets("det", counts, 20, mask_hw)


def weighted_sum(losses: dict[str, Tensor], weight_dict: dict[str, float]) -> Tensor:
    """The optimised total: the weighted sum of the losses that have a weight."""
    return sum(loss * weight_dict[name] for name, loss in losses.items() if name in weight_dict)


if DEVICE.startswith("cuda"):
    torch.backends.cudnn.allow_tf32 = False  # the golden figures are of float32


@dataclass
class CaseRun:
    """The results of one forward and backward pass that the golden figures contain."""

    outputs: dict[str, Tensor]
    matches: list[list[Tensor]]  # [layer][image], int64 [2, n]; auxiliary layers first
    losses: dict[str, Tensor]
    total: Tensor
    grad_norms: dict[str, float]
    query_gradient: Tensor


@cache
def run_case(case: str) -> CaseRun:
    """Forward, losses and one backward pass of a case, on the device that DETR_TEST_DEVICE names (default: the CPU)."""
    model, criterion = (part.to(DEVICE) for part in detector(case))
    samples, truth = detector_batch(case)
    samples = samples.to(torch.device(DEVICE))
    truth = [{name: value.to(DEVICE) for name, value in target.items()} for target in truth]
    outputs = model(samples)
    layers = [*outputs.get("aux_outputs", []), {k: v for k, v in outputs.items() if k != "aux_outputs"}]
    matches = [[torch.stack([src, tgt]) for src, tgt in criterion.matcher(layer, truth)] for layer in layers]
    losses = criterion(outputs, truth)
    total = weighted_sum(losses, criterion.weight_dict)
    total.backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return CaseRun(
        outputs={k: v.detach().cpu() for k, v in outputs.items() if k != "aux_outputs"},
        matches=matches,
        losses={k: v.detach().cpu() for k, v in losses.items()},
        total=total.detach().cpu(),
        grad_norms={n: 0.0 if p.grad is None else p.grad.norm().item() for n, p in trainable.items()},
        query_gradient=getattr(model, "detr", model).query_embed.weight.grad.cpu(),
    )
