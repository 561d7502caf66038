"""The last look at a batch's targets before a model is trained or measured on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def check_targets(targets: Sequence[Mapping[str, Tensor]], num_classes: int) -> None:
    """Refuse a target that no loss can be computed on, by the names of its image and annotation.

    Meant for targets on the CPU: on another device each call would wait for it.

    Args:
        targets: for each image boxes [n, 4] (cxcywh, fractions of the image) and labels int64 [n]; `image_id` and
            `annotation_id` [n] name a culprit where they are present; `thin` bool [n] marks boxes that may have a side
            of 0, see `datasets.coco_panoptic`.
        num_classes: labels are 0..num_classes - 1.

    Raises:
        ValueError: boxes and labels that do not belong together, a label that is no class of the model, a box that is
            not finite or has no size.
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
    boxes = torch.cat([target["boxes"] for target in targets])  # [N, 4], N objects of all images
    labels = torch.cat([target["labels"] for target in targets])  # [N]
    finite = boxes.isfinite().all(dim=1)  # [N]
    thin = torch.cat([target.get("thin", torch.zeros(len(target["labels"]), dtype=torch.bool)) for target in targets])
    sized = (boxes[:, 2:] > 0).all(dim=1) | thin & (boxes[:, 2:] >= 0).all(dim=1)
    known = (labels >= 0) & (labels < num_classes)
    good = finite & sized & known
    if good.all():
        return

    row = int(good.logical_not().nonzero()[0])
    culprit = _name_of_row(targets, row)
    if not known[row]:
        raise ValueError(
            f"{culprit} has label {int(labels[row])}, but the model has classes 0..{num_classes - 1}: pass "
            "--num_classes with the largest id + 1, or correct the annotation"
        )
    fault = "no size" if finite[row] else "numbers that are not finite"
    raise ValueError(
        f"{culprit} has a box with {fault}: {boxes[row].tolist()} (centre x, y, width, height as fractions of the "
        "image): correct or remove the annotation"
    )


def _name_of_row(targets: Sequence[Mapping[str, Tensor]], row: int) -> str:
    """The object in `row` of all targets' objects together."""
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
