"""Checks of a batch's targets before the loss is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def check_targets(targets: Sequence[Mapping[str, Tensor]], num_classes: int) -> None:
    """Reject a target for which no loss can be computed, by image and annotation id.

    Meant for targets on the CPU: with another device, each call would wait for it.

    Args:
        targets: for each image boxes [n, 4] (cxcywh, fractions of the image) and labels int64 [n]; `image_id` and
            `annotation_id` [n] are used in messages if present; `thin` bool [n] marks boxes that may have a side of 0,
            see `datasets.coco_panoptic`.
        num_classes: labels must be in 0..num_classes - 1.

    Raises:
        ValueError: the numbers of boxes and labels differ, a label is not a class of the model, or a box is not finite
            or has no area.
    """
    for target in targets:
        boxes, labels = target["boxes"], target["labels"]
        if boxes.shape != (len(labels), 4):
            raise ValueError(
                f"{_name(target)} has boxes of shape {list(boxes.shape)} for {len(labels)} labels: a target needs "
                "boxes [n, 4] and labels [n]"
            )
    if not targets:
        return
    boxes = torch.cat([target["boxes"] for target in targets])  # [N, 4], N objects in all images
    labels = torch.cat([target["labels"] for target in targets])  # [N]
    finite = boxes.isfinite().all(dim=1)  # [N]
    thin = torch.cat([target.get("thin", torch.zeros_like(target["labels"], dtype=torch.bool)) for target in targets])
    sized = (boxes[:, 2:] > 0).all(dim=1) | thin & (boxes[:, 2:] >= 0).all(dim=1)
    known = (labels >= 0) & (labels < num_classes)
    good = finite & sized & known
    if good.all():
        return

    row = int(good.logical_not().nonzero()[0])
    name = _name_of_row(targets, row)
    if not known[row]:
        raise ValueError(
            f"{name} has label {int(labels[row])}, but the model has classes 0..{num_classes - 1}: pass "
            "--num_classes with the largest id + 1, or correct the annotation"
        )
    fault = "no area" if finite[row] else "values that are not finite"
    raise ValueError(
        f"{name} has a box with {fault}: {boxes[row].tolist()} (centre x, y, width, height as fractions of the "
        "image): correct or remove the annotation"
    )


def _name_of_row(targets: Sequence[Mapping[str, Tensor]], row: int) -> str:
    """How messages refer to object `row` of all targets concatenated."""
    for target in targets:
        if row < len(target["labels"]):
            return _name(target, row)
        row -= len(target["labels"])
    raise IndexError(row)


def _name(target: Mapping[str, Tensor], row: int | None = None) -> str:
    image = f"image {int(target['image_id'])}" if "image_id" in target else "an image without image_id"
    if row is None:
        return image
    named = "annotation_id" in target and int(target["annotation_id"][row]) >= 0
    return f"annotation {int(target['annotation_id'][row])} of {image}" if named else f"object {row} of {image}"
