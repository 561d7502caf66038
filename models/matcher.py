"""Bipartite matching of predictions and objects (paper, section 3.1, equation 1).

Shapes: `B` batch, `Q` queries, `C` classes, `T` the most objects that one image of the batch has.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from util.box_ops import box_cxcywh_to_xyxy, unchecked_generalized_box_iou


class HungarianMatcher(nn.Module):
    """Finds, for each image, the assignment of objects to queries with the least total cost.

    The cost of a pair is cost_class · (−probability of the object's class) + cost_bbox · L1 distance of the boxes +
    cost_giou · (−generalised IoU of the boxes).

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
            FloatingPointError: a cost is not finite because a prediction or a target is not.
        """
        counts = [len(target["labels"]) for target in targets]
        cost = self._cost(outputs, targets).cpu().numpy()  # [B, Q, T]; the only time the host waits for the device
        matches = []
        for image, count in enumerate(counts):
            pairs = cost[image, :, :count]  # [Q, n]
            if not (pairs < float("inf")).all():  # NaN compares as False
                raise FloatingPointError(
                    f"image {image} of the batch cannot be matched: a predicted logit or box, or a target box, is not "
                    "finite (training.diagnosis.forensics.find_non_finite finds where that began)"
                )
            queries, objects = linear_sum_assignment(pairs)
            matches.append((torch.from_numpy(queries), torch.from_numpy(objects)))
        return matches

    def _cost(self, outputs: dict[str, Tensor], targets: Sequence[dict[str, Tensor]]) -> Tensor:
        """Costs [B, Q, T]. In the row of an image with n objects only the first n columns are valid."""
        prob = at_least_float32(outputs["pred_logits"]).softmax(-1)  # [B, Q, C+1]
        boxes = at_least_float32(outputs["pred_boxes"])  # [B, Q, 4]
        labels = pad_sequence([target["labels"] for target in targets], batch_first=True)  # [B, T]
        target_boxes = pad_sequence([target["boxes"] for target in targets], batch_first=True).to(boxes.dtype)

        cost_class = -prob.gather(2, labels[:, None, :].expand(-1, prob.shape[1], -1))  # [B, Q, T]
        cost_bbox = torch.cdist(boxes, target_boxes, p=1)  # [B, Q, T]
        cost_giou = -unchecked_generalized_box_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(target_boxes))
        return self.cost_bbox * cost_bbox + self.cost_class * cost_class + self.cost_giou * cost_giou


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision types are converted to float32; float64 is kept."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def build_matcher(args: argparse.Namespace) -> HungarianMatcher:
    """The matcher for the command line's settings."""
    return HungarianMatcher(cost_class=args.set_cost_class, cost_bbox=args.set_cost_bbox, cost_giou=args.set_cost_giou)
