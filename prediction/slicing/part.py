"""What was found in one part of a picture, in pixels of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prediction.result import Prediction
from prediction.slicing.tiles import Tile
from util.box_ops import box_iou

WITNESS = 0.5  # IoU, where a tile sees, of an object of the whole picture and a detection in the tile
LONG = 2  # sides of a tile
NEAR = 0.04  # of a tile's shorter side: a box that ends nearer to an edge of the tile may be cut there


@dataclass(frozen=True)
class Part:
    """The detections of a view that count.

    Attributes:
        view: the part of the picture.
        boxes: float32 [n, 4], xyxy in pixels of the picture.
        scores, labels, queries: [n].
        cut: bool [n], whether the object may go on beyond the view.
        masks: bool [n, h, w] in pixels of the view; None if the model has no masks.
    """

    view: Tile
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    queries: Tensor
    cut: Tensor
    masks: Tensor | None

    @classmethod
    def of(cls, view: Tile, prediction: Prediction, size: tuple[int, int], shared: tuple[float, float]) -> Part:
        """The detections in `view` that no other view shows better.

        Args:
            view: a tile, or the whole picture.
            prediction: what was found in it.
            size: (w, h) of the picture.
            shared: what neighbouring tiles share, in pixels across and down; infinite where there is one tile only.

        An object that is cut by an edge of its tile and reaches less far into it than `shared` is left to the
        neighbour, which shows all of that and what is beyond. The whole picture gives objects only that reach further
        in one direction: the others are whole in a tile.
        """
        left, top, right, bottom = view
        boxes = prediction.boxes + prediction.boxes.new_tensor([left, top, left, top])
        near = NEAR * min(right - left, bottom - top)
        across, down = shared
        if (right - left, bottom - top) == size:
            sides = boxes[:, 2:] - boxes[:, :2]
            cut = torch.zeros(len(boxes), dtype=torch.bool)
            kept = (sides > sides.new_tensor(shared)).any(1)
        else:
            cuts = torch.stack(
                [
                    (boxes[:, 0] < left + near) & (left > 0),
                    (boxes[:, 1] < top + near) & (top > 0),
                    (boxes[:, 2] > right - near) & (right < size[0]),
                    (boxes[:, 3] > bottom - near) & (bottom < size[1]),
                ],
                dim=1,
            )  # [n, 4]
            reach = torch.stack(
                [boxes[:, 2] - left, boxes[:, 3] - top, right - boxes[:, 0], bottom - boxes[:, 1]], dim=1
            )
            cut = cuts.any(1)
            shown = reach.new_tensor([across, down, across, down]) - near  # clear of the neighbour's own edge
            kept = ~(cuts & (reach <= shown)).any(1)
        masks = None if prediction.masks is None else prediction.masks[kept]
        return cls(
            view,
            boxes[kept],
            prediction.scores[kept],
            prediction.labels[kept],
            prediction.queries[kept],
            cut[kept],
            masks,
        )

    def where(self, kept: Tensor) -> Part:
        """The detections of a mask bool [n]."""
        names = ("boxes", "scores", "labels", "queries", "cut", "masks")
        return replace(self, **{name: value[kept] for name in names if (value := getattr(self, name)) is not None})

    @property
    def views(self) -> Tensor:
        """The view of each detection [n, 4]."""
        return self.boxes.new_tensor(self.view).expand(len(self.boxes), 4)


def confirmed(whole: Part, tiles: Sequence[tuple[Tile, Prediction]]) -> Tensor:
    """Which objects of the whole picture, bool [n], a tile has seen as well, if only a part of them and in any class.

    The whole picture shows less detail than the tiles, and may take some small objects for a large one. Of an object
    that is longer than two tiles, a tile may show too little: it needs no witness.
    """
    corners = whole.boxes.new_tensor([tile for tile, _ in tiles])  # [t, 4]
    kept = (whole.boxes[:, 2:] - whole.boxes[:, :2] > LONG * (corners[0, 2:] - corners[0, :2])).any(1)
    for tile, (_, found) in zip(corners, tiles):
        shown = torch.cat([torch.maximum(whole.boxes[:, :2], tile[:2]), torch.minimum(whole.boxes[:, 2:], tile[2:])], 1)
        inside = (shown[:, 2:] > shown[:, :2]).all(1)
        if inside.any() and len(found.boxes):
            overlap = box_iou(shown[inside], found.boxes + tile[[0, 1, 0, 1]])[0]
            kept[inside] |= (overlap >= WITNESS).any(1)
    return kept


def joined_masks(parts: Sequence[Part], groups: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Masks bool [m, H, W] of merged objects in a picture of `size` = (w, h).

    Args:
        parts: with masks.
        groups: for each object the indices of its detections among those of all parts, in their order; the mask is
            that of the first, or, if that is cut, all of them together.
    """
    places = [(part, row) for part in parts for row in range(len(part.boxes))]
    masks = torch.zeros(len(groups), size[1], size[0], dtype=torch.bool)
    for mask, group in zip(masks, groups):
        leader, row = places[int(group[0])]
        for index in group.tolist() if leader.cut[row] else [int(group[0])]:
            part, own = places[index]
            left, top, right, bottom = part.view
            mask[top:bottom, left:right] |= part.masks[own]
    return masks
