"""Bipartite matching of predictions and objects (paper, section 3.1, equation 1).

Shapes: `B` batch, `Q` queries, `C` classes, `T` the most objects that one image of the batch has.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from util.box_ops import box_cxcywh_to_xyxy, generalized_box_iou, unchecked_generalized_box_iou


class MatchingFailure(FloatingPointError):
    """A cost is not finite, so there is no cheapest assignment."""


class HungarianMatcher(nn.Module):
    """Finds, for each image, the assignment of objects to queries with the least total cost.

    The cost of a pair is cost_class · (−probability of the object's class) + cost_bbox · L1 distance of the boxes +
    cost_giou · (−generalised IoU of the boxes). `plain_cost` shows it for one image; `forward` computes the costs of
    all images at once, and is tested against it.

    Args:
        cost_class, cost_bbox, cost_giou: weights of the three terms.

    Raises:
        ValueError: all weights are zero.
    """

    def __init__(self, cost_class: float = 1, cost_bbox: float = 1, cost_giou: float = 1):
        super().__init__()
        if cost_class == 0 and cost_bbox == 0 and cost_giou == 0:
            raise ValueError(
                "all matching costs are 0, so every assignment is equally good: set at least one to a positive value"
            )
        self.cost_class = cost_class
        self.cost_bbox = cost_bbox
        self.cost_giou = cost_giou

    @torch.no_grad()
    def forward(self, outputs: dict[str, Tensor], targets: Sequence[dict[str, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Match the predictions and objects of each image.

        Args:
            outputs: `pred_logits` [B, Q, C+1] and `pred_boxes` cxcywh [B, Q, 4].
            targets: for each image `labels` int64 [n] and `boxes` cxcywh [n, 4], in the same unit as `pred_boxes`.

        Returns:
            For each image the indices of matched (queries, objects), each int64 [min(Q, n)] on the CPU, queries
            ascending.

        Raises:
            MatchingFailure: a cost is not finite because a prediction or a target is not; a `FloatingPointError`.
        """
        from scipy.optimize import linear_sum_assignment  # its import takes a third of a second

        counts = [len(target["labels"]) for target in targets]
        cost = self._cost(outputs, targets).cpu().numpy()  # [B, T, Q]; the only time the host waits for the device
        if not (cost < float("inf")).all():  # NaN compares as False
            _refuse_non_finite(cost, counts)
        matches = []
        for image, count in enumerate(counts):
            objects, queries = linear_sum_assignment(cost[image, :count])  # [n, Q]
            order = queries.argsort()
            matches.append((torch.from_numpy(queries[order]), torch.from_numpy(objects[order])))
        return matches

    def plain_cost(self, logits: Tensor, boxes: Tensor, target: dict[str, Tensor]) -> Tensor:
        """The cost of every pair of one image, [Q, n].

        Args:
            logits: [Q, C+1].
            boxes: cxcywh [Q, 4].
            target: `labels` int64 [n] and `boxes` cxcywh [n, 4].
        """
        cost_class = -logits.softmax(-1)[:, target["labels"]]
        cost_bbox = torch.cdist(boxes, target["boxes"], p=1)
        cost_giou = -generalized_box_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(target["boxes"]))
        return self.cost_class * cost_class + self.cost_bbox * cost_bbox + self.cost_giou * cost_giou

    def _cost(self, outputs: dict[str, Tensor], targets: Sequence[dict[str, Tensor]]) -> Tensor:
        """Costs [B, T, Q], only of queries and objects of the same image.

        In the block of an image with n objects only the first n rows are valid; the others repeat some object. Queries
        come last, since arithmetic is fast along a long last dimension.
        """
        prob = at_least_float32(outputs["pred_logits"]).softmax(-1)  # [B, Q, C+1]
        boxes = at_least_float32(outputs["pred_boxes"])  # [B, Q, 4]
        rows = _object_rows([len(target["labels"]) for target in targets]).to(boxes.device, non_blocking=True)  # [B, T]
        labels = torch.cat([target["labels"] for target in targets])[rows]  # [B, T]
        target_boxes = torch.cat([target["boxes"] for target in targets])[rows].to(boxes.dtype)  # [B, T, 4]

        cost = torch.cdist(target_boxes, boxes, p=1).mul_(self.cost_bbox)  # [B, T, Q]
        prob = prob.gather(2, labels[:, None, :].expand(-1, prob.shape[1], -1))  # [B, Q, T]
        cost.sub_(prob.transpose(1, 2), alpha=self.cost_class)
        giou = unchecked_generalized_box_iou(box_cxcywh_to_xyxy(target_boxes), box_cxcywh_to_xyxy(boxes))
        return cost.sub_(giou, alpha=self.cost_giou)


def _object_rows(counts: Sequence[int]) -> Tensor:
    """For images with `counts` objects, row numbers in the concatenation of all objects, int64 [B, T].

    Images with fewer than T objects repeat a row.
    """
    most, total = max(counts), sum(counts)
    first = torch.tensor([0, *counts[:-1]]).cumsum(0)  # [B]
    return (first[:, None] + torch.arange(most)).clamp(max=max(total - 1, 0))


def _refuse_non_finite(cost: np.ndarray, counts: Sequence[int]) -> None:
    """Name the first image whose valid costs, the first n rows of [T, Q], are not all finite."""
    for image, count in enumerate(counts):
        if not (cost[image, :count] < float("inf")).all():
            raise MatchingFailure(
                f"image {image} of the batch cannot be matched: a predicted logit or box, or a target box, is not "
                "finite (training.diagnosis.forensics.find_non_finite finds where that began)"
            )


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision types are converted to float32; float64 is kept."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def build_matcher(args: argparse.Namespace) -> HungarianMatcher:
    """The matcher for the command line's settings."""
    return HungarianMatcher(cost_class=args.set_cost_class, cost_bbox=args.set_cost_bbox, cost_giou=args.set_cost_giou)
