"""The mask losses of a few masks at a time against the plain functions on all of them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.fast import mask_losses as module
from models.fast.mask_losses import mask_losses
from models.segmentation import dice_loss, sigmoid_focal_loss

SIZE, PADDED = (21, 30), (24, 36)  # of the images and of the padded batch


def pairs(count: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 6 * torch.randn(count, 6, 9, generator=generator, dtype=torch.float64)
    masks = torch.rand(count, *SIZE, generator=generator) < 0.3
    masks[:1] = False  # an object that crops have removed
    logits[1:2] *= 20  # saturated
    return logits.to(dtype).requires_grad_(), masks


def plain(logits: Tensor, masks: Tensor, num_boxes: Tensor | float) -> tuple[Tensor, Tensor]:
    large = F.interpolate(logits[:, None], size=PADDED, mode="bilinear", align_corners=False)
    large = large[:, 0, : SIZE[0], : SIZE[1]].flatten(1)
    truth = masks.flatten(1).to(large.dtype)
    return sigmoid_focal_loss(large, truth, num_boxes), dice_loss(large, truth, num_boxes)


@pytest.mark.parametrize("at_once", [1, 2, 5, 100])
@pytest.mark.parametrize("dtype, rounding", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_values_and_gradients_equal_the_plain_form(at_once, dtype, rounding, monkeypatch):
    monkeypatch.setitem(module.PIXELS_AT_ONCE, "cpu", at_once * SIZE[0] * SIZE[1])
    logits, masks = pairs(5, dtype)
    found, expected = mask_losses(logits, masks, 3.0, PADDED), plain(logits, masks, 3.0)
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=rounding, atol=0)
        slope, expected_slope = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs))
        torch.testing.assert_close(
            slope, expected_slope, rtol=rounding, atol=rounding * expected_slope.abs().max().item()
        )


def test_the_gradient_of_a_weighted_sum():
    logits, masks = pairs(4)
    num_boxes = torch.tensor(2.5, dtype=torch.float64)

    def gradient(losses: tuple[Tensor, Tensor]) -> Tensor:
        return torch.autograd.grad(3 * losses[0] + 0.5 * losses[1], logits)[0]

    expected = gradient(plain(logits, masks, num_boxes))
    torch.testing.assert_close(
        gradient(mask_losses(logits, masks, num_boxes, PADDED)), expected, rtol=1e-12, atol=1e-14
    )


def test_no_pairs_give_losses_of_0_and_a_gradient():
    logits, masks = pairs(0)
    focal, dice = mask_losses(logits, masks, 1.0, PADDED)
    (focal + dice).backward()
    assert focal == dice == 0 and logits.grad.shape == logits.shape


def test_without_gradients_nothing_is_kept():
    logits, masks = pairs(3)
    with torch.no_grad():
        found = mask_losses(logits, masks, 1.0, PADDED)
    assert not found[0].requires_grad and not mask_losses(logits.detach(), masks, 1.0, PADDED)[0].requires_grad
    for ours, theirs in zip(found, plain(logits, masks, 1.0)):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=0)


def test_only_gradients_of_the_small_logits_are_kept():
    logits, masks = pairs(5)
    focal, _ = mask_losses(logits, masks, 1.0, PADDED)
    saved = focal.grad_fn.next_functions[0][0].saved_tensors
    assert [tensor.numel() for tensor in saved] == [2 * logits.numel()]


def test_a_second_derivative_is_refused():
    logits, masks = pairs(2)
    (slope,) = torch.autograd.grad(mask_losses(logits, masks, 1.0, PADDED)[0].square(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
