"""Padding, the mask, collation and pinning."""

import pytest
import torch

from util.nested_tensor import NestedTensor, collate_fn, interpolate, nested_tensor_from_tensor_list


def test_images_are_padded_right_and_bottom_with_zeros():
    wide, tall = torch.full((3, 2, 5), 1.0), torch.full((3, 4, 3), 2.0)
    tensors, mask = nested_tensor_from_tensor_list([wide, tall]).decompose()
    assert tensors.shape == (2, 3, 4, 5)
    assert torch.equal(tensors[0, :, :2], wide) and not tensors[0, :, 2:].any()
    assert torch.equal(tensors[1, :, :, :3], tall) and not tensors[1, :, :, 3:].any()


def test_the_mask_is_true_on_padding():
    mask = nested_tensor_from_tensor_list([torch.ones(3, 2, 5), torch.ones(3, 4, 3)]).mask
    expected = torch.zeros(2, 4, 5, dtype=torch.bool)
    expected[0, 2:] = True
    expected[1, :, 3:] = True
    assert mask.dtype == torch.bool
    assert torch.equal(mask, expected)


def test_images_of_one_size_have_no_padding():
    images = torch.rand(2, 3, 4, 5)
    batch = nested_tensor_from_tensor_list(list(images))
    assert torch.equal(batch.tensors, images)
    assert not batch.mask.any()


def test_a_batch_tensor_counts_as_a_list_of_its_images():
    images = torch.rand(2, 3, 4, 5)
    batch = nested_tensor_from_tensor_list(images)
    assert torch.equal(batch.tensors, images)
    assert batch.mask.shape == (2, 4, 5) and not batch.mask.any()


def test_sides_are_rounded_up_to_a_multiple_and_the_mask_covers_what_is_added():
    images = [torch.ones(3, 8, 5), torch.ones(3, 4, 9)]
    plain, batch = nested_tensor_from_tensor_list(images), nested_tensor_from_tensor_list(images, pad_multiple=4)
    assert batch.tensors.shape == (2, 3, 8, 12)  # 8 is a multiple already
    assert torch.equal(batch.tensors[..., :9], plain.tensors) and not batch.tensors[..., 9:].any()
    assert torch.equal(batch.mask[..., :9], plain.mask) and batch.mask[..., 9:].all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8])
def test_the_images_type_is_kept(dtype):
    images = [torch.ones(3, 2, 5, dtype=dtype), torch.ones(3, 4, 3, dtype=dtype)]
    assert nested_tensor_from_tensor_list(images).tensors.dtype == dtype


def test_the_images_device_is_kept():
    batch = nested_tensor_from_tensor_list([torch.ones(3, 2, 5, device="meta"), torch.ones(3, 4, 3, device="meta")])
    assert batch.tensors.is_meta and batch.mask.is_meta


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        nested_tensor_from_tensor_list([])


@pytest.mark.parametrize("odd", [torch.ones(1, 4, 4), torch.ones(4, 4), torch.ones(1, 3, 4, 4)])
def test_an_image_of_another_shape_is_named(odd):
    with pytest.raises(ValueError, match="image 1 of the batch has shape"):
        nested_tensor_from_tensor_list([torch.ones(3, 4, 4), odd])


def test_collate_batches_images_and_leaves_targets_as_they_are():
    first, second = {"image_id": torch.tensor([7])}, {"image_id": torch.tensor([9])}
    batch = collate_fn([(torch.ones(3, 2, 5), first), (torch.ones(3, 4, 3), second)])
    assert isinstance(batch, tuple)
    samples, targets = batch
    assert isinstance(samples, NestedTensor) and samples.tensors.shape == (2, 3, 4, 5)
    assert isinstance(targets, tuple) and targets[0] is first and targets[1] is second


def test_moving_a_batch_moves_tensors_and_mask_and_leaves_the_original():
    batch = nested_tensor_from_tensor_list([torch.ones(3, 2, 5)])
    moved = batch.to(torch.device("meta"))
    assert moved.tensors.is_meta and moved.mask.is_meta
    assert not batch.tensors.is_meta and not batch.mask.is_meta


def test_a_batch_without_mask_moves_too():
    assert NestedTensor(torch.ones(1, 3, 2, 5), None).to(torch.device("meta")).mask is None


def test_pinning_pins_tensors_and_mask(monkeypatch):
    # Page-locked memory needs an accelerator: what counts is that a loader's call reaches both parts.
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.clone())
    batch = nested_tensor_from_tensor_list([torch.ones(3, 2, 5)])
    pinned = batch.pin_memory()
    assert pinned.tensors is not batch.tensors and torch.equal(pinned.tensors, batch.tensors)
    assert pinned.mask is not batch.mask and torch.equal(pinned.mask, batch.mask)
    assert NestedTensor(batch.tensors, None).pin_memory().mask is None


@pytest.mark.parametrize("options", [{"size": [8, 6]}, {"scale_factor": 2.0}, {"size": [8, 6], "mode": "bilinear"}])
def test_interpolate_is_pytorchs(options):
    x = torch.rand(2, 3, 4, 3)
    assert torch.equal(interpolate(x, **options), torch.nn.functional.interpolate(x, **options))


def test_interpolate_passes_align_corners_on():
    x = torch.rand(1, 1, 4, 3)
    ends_on_corners = interpolate(x, [8, 6], mode="bilinear", align_corners=True)
    assert torch.equal(ends_on_corners[..., -1, -1], x[..., -1, -1])


def test_interpolate_takes_an_empty_batch():
    assert interpolate(torch.zeros(0, 1, 4, 4), [8, 8]).shape == (0, 1, 8, 8)
