"""Box formats, IoU and generalised IoU: values calculated by hand, and geometric properties."""

import pytest
import torch
import torchvision.ops

from util.box_ops import (
    box_area,
    box_cxcywh_to_xyxy,
    box_iou,
    box_xyxy_to_cxcywh,
    generalized_box_iou,
    masks_to_boxes,
    unchecked_generalized_box_iou,
)


def random_boxes(*shape: int, seed: int = 0) -> torch.Tensor:
    """xyxy boxes [*shape, 4] inside the unit square, some of them disjoint."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(*shape, 4, generator=generator)
    size = corners[..., 2:] * 0.4 + 0.01
    return torch.cat([corners[..., :2] * 0.6, corners[..., :2] * 0.6 + size], dim=-1)


def test_formats_by_hand():
    xyxy, cxcywh = torch.tensor([[10.0, 20.0, 40.0, 30.0]]), torch.tensor([[25.0, 25.0, 30.0, 10.0]])
    assert torch.equal(box_xyxy_to_cxcywh(xyxy), cxcywh)
    assert torch.equal(box_cxcywh_to_xyxy(cxcywh), xyxy)


def test_changing_the_format_and_back_changes_nothing():
    boxes = random_boxes(3, 5)
    torch.testing.assert_close(box_cxcywh_to_xyxy(box_xyxy_to_cxcywh(boxes)), boxes)


def test_area_by_hand():
    assert box_area(torch.tensor([[10.0, 20.0, 40.0, 30.0], [5.0, 5.0, 5.0, 9.0]])).tolist() == [300.0, 0.0]


def test_iou_and_union_of_every_pair_by_hand():
    left = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0], [5.0, 5.0, 6.0, 7.0]])
    right = torch.tensor([[1.0, 0.0, 3.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    iou, union = box_iou(left, right)
    torch.testing.assert_close(iou, torch.tensor([[2 / 6, 1.0], [0.0, 1 / 4], [0.0, 0.0]]))
    torch.testing.assert_close(union, torch.tensor([[6.0, 4.0], [5.0, 4.0], [6.0, 6.0]]))


def test_generalised_iou_by_hand():
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    others = torch.tensor([[0.0, 0.0, 1.0, 1.0], [2.0, 0.0, 3.0, 1.0], [0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]])
    # the same; hull 3, covered 2; inside, no hull left over; corners touch, hull 4, covered 2
    torch.testing.assert_close(generalized_box_iou(box, others), torch.tensor([[1.0, -1 / 3, 1 / 4, -1 / 2]]))


def test_generalised_iou_is_torchvisions():
    a, b = random_boxes(7), random_boxes(5, seed=1)
    torch.testing.assert_close(generalized_box_iou(a, b), torchvision.ops.generalized_box_iou(a, b))
    assert (box_iou(a, b)[0] == 0).any() and (box_iou(a, b)[0] > 0).any()


def test_generalised_iou_is_symmetric_and_between_minus_one_and_one():
    a, b = random_boxes(7), random_boxes(5, seed=1)
    giou = generalized_box_iou(a, b)
    torch.testing.assert_close(giou, generalized_box_iou(b, a).T)
    assert (giou >= -1).all() and (giou <= box_iou(a, b)[0] + 1e-6).all()


def test_generalised_iou_does_not_depend_on_scale_or_position():
    a, b = random_boxes(7), random_boxes(5, seed=1)
    moved = generalized_box_iou(a * 640 + 32, b * 640 + 32)
    torch.testing.assert_close(moved, generalized_box_iou(a, b), rtol=1e-4, atol=1e-5)


def test_leading_dimensions_are_batches():
    a, b = random_boxes(3, 4), random_boxes(3, 2, seed=1)
    giou = generalized_box_iou(a, b)  # [3, 4, 2]
    iou, union = box_iou(a, b)
    for image in range(3):
        torch.testing.assert_close(giou[image], generalized_box_iou(a[image], b[image]))
        torch.testing.assert_close(iou[image], box_iou(a[image], b[image])[0])
        torch.testing.assert_close(union[image], box_iou(a[image], b[image])[1])


def test_a_reversed_box_is_named_by_argument_and_row():
    good, bad = random_boxes(3), random_boxes(3)
    bad[1] = torch.tensor([0.5, 0.5, 0.4, 0.9])
    with pytest.raises(ValueError, match="row 1 of boxes1"):
        generalized_box_iou(bad, good)
    with pytest.raises(ValueError, match="row 1 of boxes2"):
        generalized_box_iou(good, bad)


def test_a_reversed_box_in_a_batch_is_named_too():
    good, bad = random_boxes(2, 4), random_boxes(2, 4)
    bad[1, 3, 3] = -1.0
    with pytest.raises(ValueError, match="row 3 of boxes1"):
        generalized_box_iou(bad, good)


def test_nan_is_not_a_box():
    bad = random_boxes(2)
    bad[0, 2] = float("nan")
    with pytest.raises(ValueError, match="row 0 of boxes2"):
        generalized_box_iou(random_boxes(2), bad)


def test_the_unchecked_form_is_the_same_function_and_shows_nan():
    a, b = random_boxes(4), random_boxes(3, seed=1)
    assert torch.equal(unchecked_generalized_box_iou(a, b), generalized_box_iou(a, b))
    a[2] = float("nan")
    assert unchecked_generalized_box_iou(a, b).isnan().any(dim=1).tolist() == [False, False, True, False]


def test_a_box_of_no_size_is_a_box():
    point = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    torch.testing.assert_close(generalized_box_iou(point, torch.tensor([[0.0, 0.0, 1.0, 1.0]])), torch.zeros(1, 1))


def test_no_boxes_give_no_pairs():
    assert generalized_box_iou(torch.zeros(0, 4), random_boxes(3)).shape == (0, 3)
    assert generalized_box_iou(random_boxes(3), torch.zeros(0, 4)).shape == (3, 0)


def test_float64_is_kept():
    a, b = random_boxes(3).double(), random_boxes(3, seed=1).double()
    for result in (generalized_box_iou(a, b), box_cxcywh_to_xyxy(a), box_xyxy_to_cxcywh(a), box_area(a)):
        assert result.dtype == torch.float64


def test_disjoint_boxes_have_a_gradient_that_draws_them_together():
    a = torch.tensor([[0.0, 0.0, 1.0, 1.0]], requires_grad=True)
    generalized_box_iou(a, torch.tensor([[3.0, 0.0, 4.0, 1.0]])).sum().backward()
    assert a.grad[0, 2] > 0  # moving the right side right raises the value


def test_masks_to_boxes_gives_first_and_last_covered_column_and_row():
    masks = torch.zeros(2, 6, 8, dtype=torch.bool)
    masks[0, 2:5, 3:4] = True
    masks[1, 0, 7] = masks[1, 5, 1] = True
    assert masks_to_boxes(masks).tolist() == [[3.0, 2.0, 3.0, 4.0], [1.0, 0.0, 7.0, 5.0]]


def test_masks_to_boxes_of_nothing():
    assert masks_to_boxes(torch.zeros(0, 6, 8)).shape == (0, 4)
    assert masks_to_boxes(torch.zeros(1, 6, 8)).tolist() == [[0.0, 0.0, 0.0, 0.0]]
