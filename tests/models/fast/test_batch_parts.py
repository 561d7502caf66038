"""The losses of a batch in parts against the losses of the batch in one piece."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.criterion import SetCriterion
from models.fast.batch_parts import with_masks_of_whole
from tests.models.fast.test_stacked_losses import QUERIES, LayerByLayer, build, case


def part_of(outputs: dict, targets: list[dict], images: slice) -> tuple[dict, list[dict]]:
    """Some images of a batch."""
    layers = [
        {n: v[images] for n, v in layer.items() if n != "aux_outputs"} for layer in outputs.get("aux_outputs", [])
    ]
    last = {name: value[images] for name, value in outputs.items() if name != "aux_outputs"}
    return last | ({"aux_outputs": layers} if layers else {}), targets[images]


def sum_of_parts(criterion: SetCriterion, outputs: dict, targets: list[dict], cuts: list[slice]) -> dict[str, Tensor]:
    parts = [criterion(*part_of(outputs, targets, images), whole=targets) for images in cuts]
    return {name: sum(part[name] for part in parts) for name in parts[0]}


CUTS = {
    "1 + 3": [slice(0, 1), slice(1, 4)],
    "2 + 2": [slice(0, 2), slice(2, 4)],
    "1 + 1 + 2": [slice(0, 1), slice(1, 2), slice(2, 4)],
}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("kind", [SetCriterion, LayerByLayer])
@pytest.mark.parametrize("counts", [[3, 0, 5, 1], [0, 0, 2, 0], [0, 0, 0, 0]], ids=str)
def test_the_parts_add_up_to_the_batch(counts, kind, cuts):
    outputs, targets = case(counts, layers=3)
    criterion = build(kind)
    whole, parts = criterion(outputs, targets), sum_of_parts(criterion, outputs, targets, cuts)
    assert list(whole) == list(parts)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name].double(), value.double(), rtol=1e-6, atol=1e-12, msg=name)
    leaves = [outputs["pred_logits"], outputs["pred_boxes"], outputs["pred_masks"]]
    names = ["loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice"]
    gradients = (torch.autograd.grad(sum(losses[name] for name in names), leaves) for losses in (whole, parts))
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_images_with_more_objects_than_queries_share_as_many_weights_as_queries():
    outputs, targets = case([QUERIES + 4, 2, 1, 0], layers=2)
    criterion = build()
    criterion.empty_weight[:-1] = 1  # as built
    whole, parts = criterion(outputs, targets), sum_of_parts(criterion, outputs, targets, CUTS["1 + 3"])
    for name, value in whole.items():
        torch.testing.assert_close(parts[name].double(), value.double(), rtol=1e-6, atol=1e-12, msg=name)


def test_a_part_without_objects_has_no_share_of_the_class_error():
    outputs, targets = case([0, 3], layers=1)
    empty = build()(*part_of(outputs, targets, slice(0, 1)), whole=targets)
    assert empty["class_error"] == 0 and build()(*part_of(outputs, targets, slice(0, 1)))["class_error"] == 100


def test_masks_are_averaged_over_the_size_of_the_whole_batch_as_far_as_predictions_reach():
    small, wide = ({"masks": torch.ones(2, 4, width, dtype=torch.bool)} for width in (5, 9))
    covering = with_masks_of_whole([small, small], [small, wide, small], None)
    assert [target["masks"].shape for target in covering] == [(2, 4, 9), (2, 4, 5)]
    assert torch.equal(covering[0]["masks"][..., :5], small["masks"]) and not covering[0]["masks"][..., 5:].any()
    assert with_masks_of_whole([small], [small, wide], (8, 7))[0]["masks"].shape == (2, 4, 7)
