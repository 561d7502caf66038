"""DETR (paper, section 3.2, figure 2): backbone, transformer and two heads that predict a set of objects in parallel.

Shapes: `B` batch, `Q` object queries, `D` transformer width, `C` classes; logits have C + 1 entries, the last for
"no object".
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import build_backbone
from models.criterion import SetCriterion, build_weight_dict
from models.fast.recompute import recompute_activations
from models.matcher import build_matcher
from models.panoptic import PostProcessPanoptic
from models.postprocess import PostProcess, PostProcessSegm
from models.segmentation import DETRsegm
from models.transformer import build_transformer
from util.compute.device import resolve_device
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list

__all__ = ["DETR", "MLP", "PostProcess", "SetCriterion", "build", "resolve_num_classes"]


class DetectorOutput(NamedTuple):
    """The predictions of `DETR` with the features that a mask head builds on."""

    outputs: dict[str, Tensor]  # as `DETR.forward` returns them
    features: list[NestedTensor]  # the backbone's levels, finest first
    projected: Tensor  # the last level in the transformer's width [B, D, h, w]
    mask: Tensor  # padding of the last level, bool [B, h, w]
    queries: Tensor  # output of the last decoder layer [B, Q, D]
    memory: Tensor  # output of the encoder [B, D, h, w]


class DETR(nn.Module):
    """The detector.

    Args:
        backbone: a `Joiner`; its `num_channels` is the width of the last feature map.
        transformer: a `Transformer` that returns the output of every decoder layer.
        num_classes: C, the largest class id + 1, without "no object".
        num_queries: Q, the largest number of objects that can be detected in one image.
        aux_loss: also return the predictions of the decoder layers before the last. Must be off for TorchScript, whose
            dictionaries hold values of one type.
    """

    __constants__ = ["aux_loss"]  # so TorchScript does not compile the branch if it is off

    def __init__(
        self, backbone: nn.Module, transformer: nn.Module, num_classes: int, num_queries: int, aux_loss: bool = False
    ):
        super().__init__()
        hidden_dim = transformer.d_model
        self.num_queries = num_queries
        self.transformer = transformer
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.bbox_embed = MLP(hidden_dim, hidden_dim, 4, 3)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.input_proj = nn.Conv2d(backbone.num_channels, hidden_dim, kernel_size=1)
        self.backbone = backbone
        self.aux_loss = aux_loss

    def forward(self, samples: NestedTensor) -> dict[str, Tensor]:
        """Detect objects in a batch of images.

        Args:
            samples: a NestedTensor of [B, 3, H, W] and its mask; outside TorchScript also a tensor [B, 3, H, W] or a
                list of images [3, h_i, w_i]. RGB, normalised by ImageNet's mean and standard deviation.

        Returns:
            `pred_logits` [B, Q, C+1] and `pred_boxes` [B, Q, 4], cxcywh as fractions of the un-padded image; with
            aux_loss also `aux_outputs`, a list of such dicts for the decoder layers before the last, first layer first.
        """
        if not isinstance(samples, NestedTensor):
            samples = nested_tensor_from_tensor_list(samples)
        return self.detect(samples).outputs

    def detect(self, samples: NestedTensor) -> DetectorOutput:
        """Like `forward`, but also return the features that a mask head builds on."""
        features, pos = self.backbone(samples)
        src, mask = features[-1].decompose()  # [B, channels, h, w], [B, h, w]
        assert mask is not None
        projected = self.input_proj(src)  # [B, D, h, w]
        hs, memory = self.transformer(projected, mask, self.query_embed.weight, pos[-1])  # [layers, B, Q, D]

        logits = self.class_embed(hs)  # [layers, B, Q, C+1]
        boxes = self.bbox_embed(hs).sigmoid()  # [layers, B, Q, 4]
        outputs = {"pred_logits": logits[-1], "pred_boxes": boxes[-1]}
        if self.aux_loss:
            outputs["aux_outputs"] = self._set_aux_loss(logits, boxes)
        return DetectorOutput(outputs, features, projected, mask, queries=hs[-1], memory=memory)

    def _set_aux_loss(self, logits: Tensor, boxes: Tensor) -> list[dict[str, Tensor]]:
        return [{"pred_logits": a, "pred_boxes": b} for a, b in zip(logits[:-1], boxes[:-1])]


class MLP(nn.Module):
    """Linear layers with ReLU between them. The box head has three."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int):
        super().__init__()
        self.num_layers = num_layers
        widths = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in zip(widths[:-1], widths[1:]))

    def forward(self, x: Tensor) -> Tensor:
        """[..., input_dim] → [..., output_dim]."""
        for index, layer in enumerate(self.layers):
            x = layer(x) if index == self.num_layers - 1 else F.relu(layer(x))
        return x


def resolve_num_classes(args: argparse.Namespace) -> int:
    """`args.num_classes`, or the published number of classes if neither flag, data nor checkpoint has set it."""
    num_classes = getattr(args, "num_classes", None)
    if num_classes is not None:
        return num_classes
    return 250 if args.dataset_file == "coco_panoptic" else 91


def resolve_things(args: argparse.Namespace, num_classes: int) -> dict[int, bool]:
    """Class id → whether it is a thing: according to `args.thing_ids`, or as published (ids up to 90)."""
    things = getattr(args, "thing_ids", None)
    return {label: label <= 90 if things is None else label in things for label in range(num_classes)}


def build(args: argparse.Namespace) -> tuple[DETR | DETRsegm, SetCriterion, dict[str, nn.Module]]:
    """Model, criterion and postprocessors for the command line's settings, the first two on `args.device`.

    With `args.masks` the model is a `DETRsegm`. Its detector is frozen if `args.frozen_weights` is set; the caller
    loads these weights.

    Raises:
        ValueError: settings that cannot be combined, with the flag to change.
    """
    num_classes = resolve_num_classes(args)
    model = DETR(
        build_backbone(args),
        build_transformer(args),
        num_classes=num_classes,
        num_queries=args.num_queries,
        aux_loss=args.aux_loss,
    )
    recompute_activations(model, getattr(args, "checkpoint_activations", False))
    losses = ["labels", "boxes", "cardinality"]
    postprocessors: dict[str, nn.Module] = {"bbox": PostProcess()}
    if args.masks:
        model = DETRsegm(model, freeze_detr=args.frozen_weights is not None)
        losses.append("masks")
        postprocessors["segm"] = PostProcessSegm()
        if args.dataset_file == "coco_panoptic":
            threshold = getattr(args, "panoptic_threshold", 0.85)
            postprocessors["panoptic"] = PostProcessPanoptic(resolve_things(args, num_classes), threshold=threshold)
    criterion = SetCriterion(
        num_classes,
        matcher=build_matcher(args),
        weight_dict=build_weight_dict(args),
        eos_coef=args.eos_coef,
        losses=losses,
    )
    device = resolve_device() if args.device == "auto" else torch.device(args.device)
    return model.to(device), criterion.to(device), postprocessors
