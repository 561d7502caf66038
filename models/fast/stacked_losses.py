"""The losses of all decoder layers in one pass, equal to `SetCriterion.loss_labels` and its siblings layer by layer.

The layers are stacked, so that each operation runs once instead of once a layer, and reduced layer by layer. Shapes:
`L` decoder layers, `B` batch, `Q` queries, `C` classes, `M` matched pairs of a batch, the same number in every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from models.matcher import at_least_float32
from util.box_ops import box_cxcywh_to_xyxy, unchecked_generalized_box_iou
from util.meters import accuracy

Layers = Sequence[dict[str, Tensor]]
Targets = Sequence[dict[str, Tensor]]
Matches = Sequence[tuple[Tensor, Tensor]]  # (queries, objects) of each image
PerLayer = dict[str, Tensor]  # name of a loss → its value in each layer [L]


class StackedLosses:
    """The predictions of all layers, stacked, and their pairs.

    Args:
        layers: predictions of each layer: `pred_logits` [B, Q, C+1] and `pred_boxes` [B, Q, 4]; see `can_stack`.
        targets: for each image `labels` int64 [n] and `boxes` [n, 4].
        matches: of each layer.
    """

    def __init__(self, layers: Layers, targets: Targets, matches: Sequence[Matches]):
        self.layers, self.targets = layers, targets
        self.shape = layers[0]["pred_logits"].shape[:2]  # B, Q
        pairs = _pair_rows(matches, [len(target["labels"]) for target in targets], self.shape[1])
        self.rows, self.objects = pairs.to(layers[0]["pred_logits"].device, non_blocking=True)  # [L·M] each
        self.logits = torch.cat([layer["pred_logits"] for layer in layers]).flatten(0, 1)  # [L·B·Q, C+1]

    def labels(self, num_classes: int, class_weights: Tensor) -> PerLayer:
        """Cross-entropy, a weighted mean over all queries, and the last layer's class error as `class_error` [1].

        Args:
            num_classes: C, the index of "no object".
            class_weights: [C+1].
        """
        logits = at_least_float32(self.logits)
        matched = torch.cat([target["labels"] for target in self.targets])[self.objects]  # [L·M]
        labels = torch.full(logits.shape[:1], num_classes, dtype=torch.int64, device=logits.device)  # [L·B·Q]
        labels[self.rows] = matched
        weights = class_weights.to(logits.dtype)
        losses = self._per_layer(F.cross_entropy(logits, labels, weights, reduction="none"))
        count = self.rows.numel() // len(self.layers)  # M
        error = 100 - accuracy(logits.detach()[self.rows[:count]], matched[:count])[0]
        return {"loss_ce": losses / self._per_layer(weights[labels]), "class_error": error[None]}

    def boxes(self, num_boxes: Tensor | float) -> PerLayer:
        """L1 and generalised-IoU loss of the matched boxes, summed and divided by `num_boxes`."""
        boxes = torch.cat([layer["pred_boxes"] for layer in self.layers]).flatten(0, 1)  # [L·B·Q, 4]
        boxes = at_least_float32(boxes).index_select(0, self.rows)  # [L·M, 4]
        targets = torch.cat([target["boxes"] for target in self.targets])[self.objects].to(boxes.dtype)  # [L·M, 4]
        pairs = (box_cxcywh_to_xyxy(boxes)[:, None], box_cxcywh_to_xyxy(targets)[:, None])  # [L·M, 1, 4] twice
        distance = F.l1_loss(boxes, targets, reduction="none")
        return {
            "loss_bbox": self._per_layer(distance) / num_boxes,
            "loss_giou": self._per_layer(1 - unchecked_generalized_box_iou(*pairs)) / num_boxes,
        }

    @torch.no_grad()
    def cardinality(self) -> PerLayer:
        """The difference between the numbers of non-empty predictions and of objects."""
        logits = self.logits
        # Of equal logits argmax takes the first, so a query is empty only if "no object" exceeds all classes.
        found = (logits[:, :-1].amax(-1) >= logits[:, -1]).view(len(self.layers), *self.shape).sum(-1)  # [L, B]
        objects = torch.tensor([len(target["labels"]) for target in self.targets])
        objects = objects.to(logits.device, non_blocking=True)  # [B]
        return {"cardinality_error": (found.float() - objects.float()).abs().mean(-1)}

    def _per_layer(self, values: Tensor) -> Tensor:
        """Values of all layers, one layer after the other, summed for each layer → [L]."""
        return values.reshape(len(self.layers), -1).sum(-1)


def can_stack(layers: Layers, matches: Sequence[Matches]) -> bool:
    """Whether all layers have the same shapes, and the same number of pairs, as those of a decoder have."""
    shapes = {(layer["pred_logits"].shape, layer["pred_boxes"].shape) for layer in layers}
    pairs = {sum(len(queries) for queries, _ in indices) for indices in matches}
    return len(shapes) == len(pairs) == 1


def _pair_rows(matches: Sequence[Matches], counts: Sequence[int], queries: int) -> Tensor:
    """Pairs as row numbers, int64 [2, L·M], on the CPU: in predictions [L·B·Q, ...] and in the objects of all images.

    Args:
        matches: of each layer.
        counts: the number of objects of each image.
        queries: Q.
    """
    pairs = [pair for indices in matches for pair in indices]  # of L·B images
    lengths = torch.tensor([len(chosen) for chosen, _ in pairs])
    image = torch.arange(len(pairs)).repeat_interleave(lengths)  # [L·M]
    first = torch.tensor([0, *accumulate(counts[:-1])])  # [B], row of each image's first object
    found, objects = (torch.cat(column) for column in zip(*pairs))
    return torch.stack([image * queries + found, first[image % len(counts)] + objects])
