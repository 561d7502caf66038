"""Batches of images of different sizes: padded tensors with a mask (paper, section 3.2: zero-padded to the largest).

Shapes: `B` batch, `C` channels, `H`, `W` the batch's largest height and width.
"""

# TorchScript needs the annotations of a class as objects, so this file does not import `annotations` from __future__.
from collections.abc import Sequence
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor


class NestedTensor:
    """Padded images and their padding mask.

    Args:
        tensors: [B, C, H, W], zero where padded.
        mask: bool [B, H, W], **True where padded**; may be None.
    """

    def __init__(self, tensors: Tensor, mask: Tensor | None):
        self.tensors = tensors
        self.mask = mask

    def to(self, device: torch.device, non_blocking: bool = False) -> "NestedTensor":
        """The same batch on another device; with pinned memory and `non_blocking`, the copy is asynchronous."""
        mask = self.mask
        if mask is not None:
            mask = mask.to(device, non_blocking=non_blocking)
        return NestedTensor(self.tensors.to(device, non_blocking=non_blocking), mask)

    def pin_memory(self) -> "NestedTensor":
        """The same batch in page-locked memory; data loaders call this method by its name."""
        mask = self.mask
        if mask is not None:
            mask = mask.pin_memory()
        return NestedTensor(self.tensors.pin_memory(), mask)

    def decompose(self) -> tuple[Tensor, Optional[Tensor]]:  # noqa: UP045  TorchScript reads no `|` in brackets
        """(tensors, mask)."""
        return self.tensors, self.mask

    def __repr__(self) -> str:
        return str(self.tensors)


def nested_tensor_from_tensor_list(tensor_list: list[Tensor], pad_multiple: int = 1) -> NestedTensor:
    """Pad images on the right and at the bottom to the largest height and width among them.

    Args:
        tensor_list: images [C, h_i, w_i] with the same channel count, type and device, or one tensor [B, C, H, W].
        pad_multiple: both sides are rounded up to a multiple of this many pixels.

    Returns:
        NestedTensor of [B, C, H, W] and a mask that is True on padding.

    Raises:
        ValueError: there is no image, or one is not [C, h, w] with the channel count of the first.
    """
    if len(tensor_list) == 0:
        raise ValueError("a batch needs at least one image, got an empty list")
    for index, image in enumerate(tensor_list):
        if image.ndim != 3 or image.shape[0] != tensor_list[0].shape[0]:
            raise ValueError(
                f"image {index} of the batch has shape {list(image.shape)}, but every image must be "
                f"[{tensor_list[0].shape[0]}, height, width]: add or remove dimensions before batching"
            )
    channels = tensor_list[0].shape[0]
    height = _round_up(max([image.shape[1] for image in tensor_list]), pad_multiple)
    width = _round_up(max([image.shape[2] for image in tensor_list]), pad_multiple)
    tensors = tensor_list[0].new_empty([len(tensor_list), channels, height, width])  # [B, C, H, W]
    mask = torch.ones([len(tensor_list), height, width], dtype=torch.bool, device=tensors.device)  # [B, H, W]
    for index, image in enumerate(tensor_list):
        tensors[index, :, : image.shape[1], : image.shape[2]].copy_(image)
        tensors[index, :, : image.shape[1], image.shape[2] :].zero_()  # only the padding, each number is written once
        tensors[index, :, image.shape[1] :].zero_()
        mask[index, : image.shape[1], : image.shape[2]] = False
    return NestedTensor(tensors, mask)


def _round_up(side: int, multiple: int) -> int:
    return (side + multiple - 1) // multiple * multiple


def collate_fn(batch: Sequence[tuple[Tensor, dict]], *, pad_multiple: int = 1) -> tuple[NestedTensor, tuple[dict, ...]]:
    """[(image [C, h, w], target)] → (NestedTensor, targets), for a DataLoader; see `nested_tensor_from_tensor_list`."""
    images, targets = zip(*batch)
    return nested_tensor_from_tensor_list(images, pad_multiple=pad_multiple), targets


def interpolate(
    input: Tensor,
    size: list[int] | None = None,
    scale_factor: float | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """`torch.nn.functional.interpolate`, which now handles empty batches itself; kept for its published name."""
    return F.interpolate(input, size, scale_factor, mode, align_corners)
