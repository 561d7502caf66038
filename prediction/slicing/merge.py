"""Non-maximum merging by class: detections in several views of one picture → one for each object.

A view is a part of the picture: a tile, or the whole of it. An object at the edge of a tile is cut there, and another
view shows more of it, so boxes are compared where both views see: two detections of one class are of one object if
their boxes, clipped to what both views show, overlap. This holds for a whole object and its cut part as for the two
parts of an object that no view shows whole, and a small object inside the box of a large one stays.

The class of a cut part is a guess: one that lies in the box of an object that another tile shows whole belongs to it,
whatever its class (intersection over the smaller box, as in SAHI: Akyon et al. 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

SAME = 0.5  # IoU, where both views see, from which two detections of one view are of one object
SAME_ELSEWHERE = 0.35  # the same for detections of two views: each view tells its own objects apart
SEEN_BY_BOTH = 0.1  # least share of the smaller box in that: less of it says nothing
INSIDE = 0.5  # share of a cut part in the box of a whole object from which it belongs to that


def merge(boxes: Tensor, scores: Tensor, labels: Tensor, views: Tensor, cut: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Merge the detections of all views.

    Detections that their view shows whole come first, those of tiles before those of the whole picture, which shows
    less detail, and the best of them first. They take those of the same object; their boxes stay as they are. Of an
    object that no view shows whole, the box is that around all its parts.

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
    coarse = _area(views) > _area(views).amin(0, keepdim=True) if len(views) else cut  # of the whole picture
    order = order[torch.argsort((2 * cut + 1 * (coarse & ~cut))[order], stable=True)]
    free = torch.ones(len(boxes), dtype=torch.bool)
    merged, groups = [], []
    for leader in order.tolist():
        if not free[leader]:
            continue
        free[leader] = False
        group, box = [leader], boxes[leader]
        for member in group:  # grows
            alike = labels == labels[member]
            same = alike & _same_object(boxes[member], views[member], boxes, views)
            if not cut[leader]:
                parts = cut & (views != views[leader]).any(1) & (alike | ~coarse[leader])
                same |= parts & (_share_inside(boxes, boxes[leader]) >= INSIDE)
            same = (same & free).nonzero()[:, 0]
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
    least = torch.where((views == view).all(1), SAME, SAME_ELSEWHERE)
    return (common >= least * union) & (common >= SEEN_BY_BOTH * smaller) & (common > 0)


def _share_inside(boxes: Tensor, box: Tensor) -> Tensor:
    """[n], of the area of each of `boxes` [n, 4], that in `box` [4]."""
    return _area(_clipped(boxes, box.expand_as(boxes))) / _area(boxes).clamp(min=1e-9)


def _clipped(boxes: Tensor, regions: Tensor) -> Tensor:
    return torch.cat([torch.maximum(boxes[:, :2], regions[:, :2]), torch.minimum(boxes[:, 2:], regions[:, 2:])], dim=1)


def _area(boxes: Tensor) -> Tensor:
    """[n]; zero for a box whose second corner is before its first."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
