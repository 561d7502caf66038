"""Class-wise non-maximum merging: detections in several views of one picture → one for each object.

A view is a part of the picture: a tile, or the whole of it. An object at the edge of a tile is cut there, and another
view shows more of it, so boxes are compared where both views see: two detections of one class are of one object if
their boxes, clipped to what both views show, overlap. This holds for a whole object and its cut part as for the two
parts of an object that no view shows whole, and a small object inside the box of a large one stays.
"""

from __future__ import annotations

import torch
from torch import Tensor

SAME = 0.5  # IoU, where both views see, from which two detections are of one object
SEEN_BY_BOTH = 0.1  # least share of the smaller box in that: less of it says nothing


def merge(boxes: Tensor, scores: Tensor, labels: Tensor, views: Tensor, cut: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Merge the detections of all views.

    Detections that their view shows whole come first, the best of them first, and take those of the same object; their
    boxes stay as they are. Of an object that no view shows whole, the box is that around all its parts.

    Args:
        boxes: [n, 4] xyxy in pixels of the picture.
        scores, labels: [n].
        views: [n, 4] xyxy, the part of the picture that each detection was found in.
        cut: bool [n], whether the object may go on beyond its view.

    Returns:
        The boxes [m, 4], and for each the indices of its detections, the one that leads first. In order of the highest
        score in each.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    order = torch.cat([order[~cut[order]], order[cut[order]]])
    free = torch.ones(len(boxes), dtype=torch.bool)
    merged, groups = [], []
    for leader in order.tolist():
        if not free[leader]:
            continue
        free[leader] = False
        group, box = [leader], boxes[leader]
        for member in group:  # grows
            rivals = (free & (labels == labels[member])).nonzero()[:, 0]
            same = rivals[_same_object(boxes[member], views[member], boxes[rivals], views[rivals])]
            free[same] = False
            group += same.tolist()
            if not cut[leader]:
                break
        if cut[leader] and len(group) > 1:
            box = torch.cat([boxes[group, :2].amin(0), boxes[group, 2:].amax(0)])
        merged.append(box)
        groups.append(torch.tensor(group))
    best = torch.stack([scores[group].max() for group in groups]) if groups else scores[:0]
    ranking = torch.argsort(best, descending=True, stable=True).tolist()
    return (
        torch.stack([merged[index] for index in ranking]) if groups else boxes[:0],
        [groups[index] for index in ranking],
    )


def _same_object(box: Tensor, view: Tensor, boxes: Tensor, views: Tensor) -> Tensor:
    """Whether each of `boxes` [n, 4], seen in `views` [n, 4], is of the object of `box` [4], seen in `view` [4]."""
    shared = torch.cat([torch.maximum(view[:2], views[:, :2]), torch.minimum(view[2:], views[:, 2:])], dim=1)
    first, second = _clipped(box.expand_as(boxes), shared), _clipped(boxes, shared)
    common = _area(_clipped(first, second))
    union = _area(first) + _area(second) - common
    smaller = torch.minimum(_area(box[None]), _area(boxes))
    return (common >= SAME * union) & (common >= SEEN_BY_BOTH * smaller) & (common > 0)


def _clipped(boxes: Tensor, regions: Tensor) -> Tensor:
    return torch.cat([torch.maximum(boxes[:, :2], regions[:, :2]), torch.minimum(boxes[:, 2:], regions[:, 2:])], dim=1)


def _area(boxes: Tensor) -> Tensor:
    """[n]; zero for a box whose second corner is before its first."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
