"""Boxes: formats, IoU and generalised IoU (paper, equation 10; Rezatofighi et al. 2019).

Formats: xyxy = (x0, y0, x1, y1) corners; cxcywh = (centre x, centre y, width, height). Any unit, the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def box_cxcywh_to_xyxy(x: Tensor) -> Tensor:
    """[..., 4] cxcywh → xyxy."""
    cx, cy, w, h = x.unbind(-1)
    return torch.stack([cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h], dim=-1)


def box_xyxy_to_cxcywh(x: Tensor) -> Tensor:
    """[..., 4] xyxy → cxcywh."""
    x0, y0, x1, y1 = x.unbind(-1)
    return torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dim=-1)


def box_area(boxes: Tensor) -> Tensor:
    """Areas of xyxy boxes [..., 4] → [...]."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union of every pair.

    Args:
        boxes1: xyxy [..., N, 4].
        boxes2: xyxy [..., M, 4], the same leading dimensions.

    Returns:
        (iou [..., N, M], union area [..., N, M])
    """
    first, second = _columns(boxes1, -1), _columns(boxes2, -2)
    inter = _intersection(first, second)
    union = box_area(boxes1)[..., :, None] + box_area(boxes2)[..., None, :] - inter  # [..., N, M]
    return inter / union, union


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalised IoU of every pair, in [-1, 1]: IoU minus the fraction of the enclosing box that neither covers.

    Args:
        boxes1: xyxy [..., N, 4].
        boxes2: xyxy [..., M, 4], the same leading dimensions.

    Returns:
        [..., N, M]

    Raises:
        ValueError: a box contains NaN or its second corner is before its first; the message names argument and row.
    """
    _refuse_degenerate(boxes1, "boxes1")
    _refuse_degenerate(boxes2, "boxes2")
    return unchecked_generalized_box_iou(boxes1, boxes2)


def unchecked_generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """`generalized_box_iou` for boxes known to be valid: no check, so no device synchronization; NaN gives NaN."""
    iou, union = box_iou(boxes1, boxes2)
    hull = _hull(_columns(boxes1, -1), _columns(boxes2, -2))
    return iou - (hull - union) / hull


def masks_to_boxes(masks: Tensor) -> Tensor:
    """The tightest xyxy boxes around masks, from the first to the last non-zero column and row, both inclusive.

    x1 is the last column inside, as published, not the edge behind it: a mask of the columns 3 to 5 is three pixels
    wide and gives x0 = 3, x1 = 5. A box of COCO's annotations for it ends at 6.

    Args:
        masks: [N, H, W], non-zero inside.

    Returns:
        float32 [N, 4]; zeros for an empty mask.
    """
    boxes = torch.zeros(masks.shape[0], 4, dtype=torch.float32, device=masks.device)
    for index, mask in enumerate(masks):
        ys, xs = torch.nonzero(mask, as_tuple=True)
        if len(xs):
            boxes[index] = torch.stack([xs.min(), ys.min(), xs.max(), ys.max()]).float()
    return boxes


def _columns(boxes: Tensor, dim: int) -> tuple[Tensor, ...]:
    """The four numbers of boxes [..., N, 4] as tensors [..., N] with a dimension of one at `dim`.

    Each is contiguous: arithmetic on every fourth number, or on pairs (x, y), takes several times as long.
    """
    return boxes.movedim(-1, 0).contiguous().unsqueeze(dim).unbind()


def _intersection(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Common area of boxes given by their columns; zero if they have none."""
    width = torch.minimum(first[2], second[2]) - torch.maximum(first[0], second[0])
    height = torch.minimum(first[3], second[3]) - torch.maximum(first[1], second[1])
    return width.clamp(min=0) * height.clamp(min=0)


def _hull(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Area of the smallest box around both, given by their columns."""
    width = torch.maximum(first[2], second[2]) - torch.minimum(first[0], second[0])
    height = torch.maximum(first[3], second[3]) - torch.minimum(first[1], second[1])
    return width.clamp(min=0) * height.clamp(min=0)


def _refuse_degenerate(boxes: Tensor, name: str) -> None:
    ordered = (boxes[..., 2:] >= boxes[..., :2]).all(dim=-1)  # [..., N]; NaN compares as False
    if not ordered.all():
        row = (~ordered).nonzero()[0].tolist()
        raise ValueError(
            f"row {row[-1]} of {name} is {boxes[tuple(row)].tolist()}, which is not a valid box: corners must be "
            "finite with x0 <= x1 and y0 <= y1; convert cxcywh boxes with box_cxcywh_to_xyxy first"
        )
