"""DETR's set loss (paper, section 3.1, equations 1 and 2, and section A.2).

Shapes: `B` batch, `Q` queries, `C` classes (index C is "no object"), `M` matched pairs of the whole batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fast.batch_parts import shares_of_means, with_masks_of_whole
from models.fast.mask_losses import mask_losses
from models.fast.masks_on_demand import masks_of
from models.fast.stacked_losses import StackedLosses, can_stack
from models.matcher import at_least_float32
from models.matching_failures import nan_if_others_wait
from util.box_ops import box_cxcywh_to_xyxy, unchecked_generalized_box_iou
from util.dist import mean_over_processes
from util.meters import accuracy

Matches = Sequence[tuple[Tensor, Tensor]]


class SetCriterion(nn.Module):
    """Matches the predictions of every decoder layer with the objects, then compares the pairs.

    `plain_forward` and the losses that it calls show the computation. `forward` does it for all layers at once, also
    among processes and for parts of a batch, and is tested against it.

    Args:
        num_classes: C.
        matcher: computes the pairs, see `HungarianMatcher`.
        weight_dict: loss name → weight in the total. The criterion returns unweighted losses; the caller sums them.
        eos_coef: weight of the class "no object" in the classification loss.
        losses: which of "labels", "boxes", "cardinality" and "masks" to compute; masks only on the last layer.
    """

    def __init__(
        self, num_classes: int, matcher: nn.Module, weight_dict: dict[str, float], eos_coef: float, losses: list[str]
    ):
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        self.weight_dict = weight_dict
        self.eos_coef = eos_coef
        self.losses = losses
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = eos_coef
        self.register_buffer("empty_weight", empty_weight)

    def plain_forward(self, outputs: dict[str, Any], targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The plain form of `forward` on one process, layer by layer: what it computes, without how it is made fast."""
        num_boxes = max(1, sum(len(target["labels"]) for target in targets))
        losses: dict[str, Tensor] = {}
        for number, layer in enumerate([outputs, *outputs.get("aux_outputs", [])]):
            indices = self.matcher(layer, targets)  # each layer is matched anew
            for loss in self.losses:
                if number == 0:
                    losses |= self.get_loss(loss, layer, targets, indices, num_boxes)
                elif loss != "masks":  # predicted by the last layer only
                    values = self.get_loss(loss, layer, targets, indices, num_boxes)
                    losses |= {f"{k}_{number - 1}": value for k, value in values.items() if k != "class_error"}
        return losses

    @nan_if_others_wait
    def forward(
        self,
        outputs: dict[str, Tensor],
        targets: Sequence[dict[str, Tensor]],
        *,
        num_boxes: Tensor | float | None = None,
        padded_size: tuple[int, int] | None = None,
        whole: Sequence[dict[str, Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """All losses and logged values.

        In a process group, predictions that cannot be matched raise no error. They make all losses of this process and
        the box and mask losses of the others NaN, see `models.matching_failures`.

        Args:
            outputs: of `DETR`, with or without `aux_outputs`.
            targets: for each image `labels` int64 [n] in 0…C−1 and `boxes` cxcywh fractions [n, 4].
            num_boxes: the divisor of the box losses. None: the number of boxes on a process, averaged over all
                processes, which must then all call this. With a number there is no communication.
            padded_size: (height, width) that `pred_masks` cover; None: the largest of the targets' masks.
            whole: targets, on any device, of the whole batch that `outputs` and `targets` are a part of. Each value is
                then the part's share: the shares of all parts add up to the values of the whole batch.

        Returns:
            `loss_ce`, `loss_bbox`, `loss_giou` and, for the masks of the last layer, `loss_mask` and `loss_dice` (to be
            weighted and summed); `class_error` and `cardinality_error` (for the log). Auxiliary layer i has the same
            with the suffix `_i`, without class error and masks.

        Raises:
            ValueError: a label outside 0…C−1, or a target box that is not finite, with the index of the image. Only
                checked for targets on the CPU: on other devices the check would wait for the device.
            MatchingFailure: predictions cannot be matched, and there is no other process to wait for this one.
        """
        self._check_targets(targets)
        layers = [outputs, *outputs.get("aux_outputs", [])]
        matches = self._match(layers, targets)
        if num_boxes is None:
            num_boxes = self._count_boxes(whole or targets, outputs["pred_logits"].device)
        return self.compute_losses(layers, targets, matches, num_boxes, padded_size, whole)

    def compute_losses(
        self,
        layers: Sequence[dict[str, Tensor]],
        targets: Sequence[dict[str, Tensor]],
        matches: Sequence[Matches],
        num_boxes: Tensor | float,
        padded_size: tuple[int, int] | None = None,
        whole: Sequence[dict[str, Tensor]] | None = None,
    ) -> dict[str, Tensor]:
        """The losses of given matches, as `forward` returns them.

        The known losses of all layers are computed in one pass, see `models.fast.stacked_losses`, unless a subclass
        computes them in its own way. They share one graph: call `backward` once, on their sum.

        Args:
            layers: the predictions of the last decoder layer, then those of the auxiliary layers.
            matches: for each of the layers, the matched (queries, objects) of each image.
        """
        stacked = StackedLosses(layers, targets, matches) if can_stack(layers, matches) else None
        per_layer: list[dict[str, Tensor]] = [{} for _ in layers]
        for loss in self.losses:
            if stacked is not None and self._is_own(loss):
                values = self._stacked_loss(loss, stacked, num_boxes)
                for name, value in values.items():
                    for losses, of_layer in zip(per_layer, value.unbind()):
                        losses[name] = of_layer
                continue
            for index, (losses, layer, indices) in enumerate(zip(per_layer, layers, matches)):
                if loss == "masks":
                    if index == 0:  # masks are predicted for the last layer only
                        covering = targets if whole is None else with_masks_of_whole(targets, whole, padded_size)
                        losses |= self.get_loss(loss, layer, covering, indices, num_boxes, padded_size=padded_size)
                else:
                    options = {"log": False} if loss == "labels" and index > 0 else {}
                    losses |= self.get_loss(loss, layer, targets, indices, num_boxes, **options)
        if whole is not None:
            shares = shares_of_means(layers[0]["pred_logits"], targets, whole, self.empty_weight)
            per_layer = [{name: v * shares.get(name, 1) for name, v in losses.items()} for losses in per_layer]
        last, *inner = per_layer
        return last | {f"{name}_{i}": value for i, losses in enumerate(inner) for name, value in losses.items()}

    def _is_own(self, loss: str) -> bool:
        """Whether a group of losses is computed as this class does, and by no method of a subclass or another one."""
        return loss in _OWN and all(getattr(getattr(self, m), "__func__", None) is f for m, f in _OWN[loss].items())

    def _stacked_loss(self, loss: str, stacked: StackedLosses, num_boxes: Tensor | float) -> dict[str, Tensor]:
        """One group of losses of all layers: name → [L], or [1] for what only the last layer has."""
        if loss == "labels":
            return stacked.labels(self.num_classes, self.empty_weight)
        return stacked.boxes(num_boxes) if loss == "boxes" else stacked.cardinality()

    def get_loss(
        self,
        loss: str,
        outputs: dict[str, Tensor],
        targets: Sequence[dict[str, Tensor]],
        indices: Matches,
        num_boxes: Tensor | float,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """One group of losses by name.

        Raises:
            ValueError: an unknown name.
        """
        groups = {
            "labels": self.loss_labels,
            "cardinality": self.loss_cardinality,
            "boxes": self.loss_boxes,
            "masks": self.loss_masks,
        }
        if loss not in groups:
            raise ValueError(f"unknown loss {loss!r}: choose from {', '.join(groups)}")
        return groups[loss](outputs, targets, indices, num_boxes, **kwargs)

    def loss_labels(
        self,
        outputs: dict[str, Tensor],
        targets: Sequence[dict[str, Tensor]],
        indices: Matches,
        num_boxes: Tensor | float,
        log: bool = True,
    ) -> dict[str, Tensor]:
        """Cross-entropy over all queries, a weighted mean in which the class "no object" has the weight `eos_coef`."""
        logits = at_least_float32(outputs["pred_logits"])  # [B, Q, C+1]
        where = _query_index(indices, logits.device)
        matched_labels = _matched([target["labels"] for target in targets], indices)  # [M]
        labels = torch.full(logits.shape[:2], self.num_classes, dtype=torch.int64, device=logits.device)  # [B, Q]
        labels[where] = matched_labels
        losses = {"loss_ce": F.cross_entropy(logits.transpose(1, 2), labels, self.empty_weight.to(logits.dtype))}
        if log:
            losses["class_error"] = 100 - accuracy(logits[where], matched_labels)[0]
        return losses

    @torch.no_grad()
    def loss_cardinality(
        self,
        outputs: dict[str, Tensor],
        targets: Sequence[dict[str, Tensor]],
        indices: Matches,
        num_boxes: Tensor | float,
    ) -> dict[str, Tensor]:
        """The difference between the numbers of non-empty predictions and of objects. Logged only, without gradient."""
        logits = outputs["pred_logits"]
        objects = torch.tensor([len(target["labels"]) for target in targets])  # [B]
        objects = objects.to(logits.device, non_blocking=True)
        predicted = (logits.argmax(-1) != logits.shape[-1] - 1).sum(1)  # [B]
        return {"cardinality_error": F.l1_loss(predicted.float(), objects.float())}

    def loss_boxes(
        self,
        outputs: dict[str, Tensor],
        targets: Sequence[dict[str, Tensor]],
        indices: Matches,
        num_boxes: Tensor | float,
    ) -> dict[str, Tensor]:
        """L1 and generalised-IoU loss of the matched boxes, summed and divided by the number of boxes."""
        boxes = at_least_float32(outputs["pred_boxes"])
        boxes = boxes[_query_index(indices, boxes.device)]  # [M, 4]
        target_boxes = _matched([target["boxes"] for target in targets], indices).to(boxes.dtype)  # [M, 4]
        # Each pair is a batch of one, so the pairwise function computes only the matched pairs.
        pairs = (box_cxcywh_to_xyxy(boxes)[:, None], box_cxcywh_to_xyxy(target_boxes)[:, None])  # [M, 1, 4] twice
        giou = unchecked_generalized_box_iou(*pairs)  # [M, 1, 1]
        return {
            "loss_bbox": F.l1_loss(boxes, target_boxes, reduction="sum") / num_boxes,
            "loss_giou": (1 - giou).sum() / num_boxes,
        }

    def loss_masks(
        self,
        outputs: dict[str, Tensor],
        targets: Sequence[dict[str, Tensor]],
        indices: Matches,
        num_boxes: Tensor | float,
        padded_size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        """Focal and Dice loss of the matched masks, over the largest height and width in the batch, as published.

        Predictions with more padding give the same losses if `padded_size` states the size that they cover.
        """
        size = [max(target["masks"].shape[axis] for target in targets) for axis in (-2, -1)]  # H, W
        logits = at_least_float32(masks_of(outputs, [queries for queries, _ in indices]))  # [M, h, w]
        masks = _matched([_padded(target["masks"], size) for target in targets], indices)  # [M, H, W]
        focal, dice = mask_losses(logits, masks, num_boxes, padded_size or size)
        return {"loss_mask": focal, "loss_dice": dice}

    def _match(self, layers: list[dict[str, Tensor]], targets: Sequence[dict[str, Tensor]]) -> list[Matches]:
        """Match each layer separately, but in one call, so that the host waits for the device only once."""
        stacked = {name: torch.cat([layer[name] for layer in layers]) for name in ("pred_logits", "pred_boxes")}
        indices = self.matcher(stacked, list(targets) * len(layers))
        batch = len(targets)
        return [indices[start : start + batch] for start in range(0, len(indices), batch)]

    def _check_targets(self, targets: Sequence[dict[str, Tensor]]) -> None:
        for image, target in enumerate(targets):
            labels, boxes = target["labels"], target["boxes"]
            if labels.is_cpu and not ((labels >= 0) & (labels < self.num_classes)).all():
                wrong = next(label for label in labels.tolist() if not 0 <= label < self.num_classes)
                raise ValueError(
                    f"image {image} of the batch has an object with label {wrong}, but the model has classes "
                    f"0..{self.num_classes - 1}: increase --num_classes or correct the annotations"
                )
            if boxes.is_cpu and not boxes.isfinite().all():
                wrong = next(i for i, box in enumerate(boxes) if not box.isfinite().all())
                raise ValueError(
                    f"box {wrong} of image {image} of the batch is {boxes[wrong].tolist()}, which is not finite: "
                    "correct the annotations or the transforms"
                )

    def _count_boxes(self, targets: Sequence[dict[str, Tensor]], device: torch.device) -> Tensor:
        """The number of boxes on a process, averaged over all processes and at least 1: the same divisor on each."""
        boxes = float(sum(len(target["labels"]) for target in targets))
        return mean_over_processes(boxes, device).clamp(min=1)


# The methods that compute a group of losses for one layer, for which `StackedLosses` has a form for all layers.
_OWN = {
    loss: {"get_loss": SetCriterion.get_loss, method: getattr(SetCriterion, method)}
    for loss, method in {"labels": "loss_labels", "boxes": "loss_boxes", "cardinality": "loss_cardinality"}.items()
}


def _query_index(indices: Matches, device: torch.device) -> tuple[Tensor, Tensor]:
    """Matches → (image [M], query [M]), an index into predictions [B, Q, ...]."""
    image = torch.cat([torch.full_like(queries, i) for i, (queries, _) in enumerate(indices)])
    query = torch.cat([queries for queries, _ in indices])
    pair = torch.stack([image, query]).to(device, non_blocking=True)
    return pair[0], pair[1]


def _matched(values: Sequence[Tensor], indices: Matches) -> Tensor:
    """Values per image [n, ...] → values of the matched objects of the whole batch [M, ...]."""
    return torch.cat([v[objects.to(v.device, non_blocking=True)] for v, (_, objects) in zip(values, indices)])


def _padded(masks: Tensor, size: Sequence[int]) -> Tensor:
    """[n, h, w] → [n, *size], padded with False on the right and at the bottom."""
    return F.pad(masks, (0, size[1] - masks.shape[-1], 0, size[0] - masks.shape[-2]))


def build_weight_dict(args: argparse.Namespace) -> dict[str, float]:
    """Loss name → weight, for the last decoder layer and, with auxiliary losses, for the layers before it."""
    weights = {"loss_ce": 1, "loss_bbox": args.bbox_loss_coef, "loss_giou": args.giou_loss_coef}
    if args.masks:
        weights |= {"loss_mask": args.mask_loss_coef, "loss_dice": args.dice_loss_coef}
    if args.aux_loss:
        inner = range(args.dec_layers - 1)
        weights |= {f"{name}_{layer}": weight for layer in inner for name, weight in weights.items()}
    return weights
