"""Transforms of an image together with its target, and the ImageNet mean and standard deviation they normalise with.

Images are PIL images until `ToTensor`. A target is a dict whose per-object entries are transformed with the image:
boxes float32 [n, 4] (xyxy, pixels), masks [n, h, w], keypoints [n, K, 3] (x, y, visibility), area [n] (pixels), labels
[n], iscrowd [n], annotation_id [n], thin [n] (its box may have a side of 0, see `datasets.coco_panoptic`); and `size`
int64 [2] = (h, w), the image's current size in pixels. Every function and transform takes (image, target) and returns a
new pair; the given dict is not changed.

Flips, branches and sizes are drawn from Python's `random`, crop positions and erasing from torch's global generator, in
the order of the published augmentation: with both seeded, it gives the same views.

`n` objects, `h`, `w` height and width, `K` keypoints.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import ImageOps
from PIL.Image import Image, Resampling, Transpose
from torch import Tensor
from torch.nn.functional import interpolate

from datasets.pixels import crop_masks, normalize, random_region, to_tensor
from util.box_ops import box_xyxy_to_cxcywh

Target = dict[str, Any]
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB values in 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)
Transform = Callable[[Any, "Target | None"], "tuple[Any, Target | None]"]

# Entries with one row per object: dropping an object drops its row in all of them.
PER_OBJECT = ("labels", "area", "iscrowd", "boxes", "masks", "keypoints", "annotation_id", "thin")


def crop(image: Image, target: Target, region: tuple[int, int, int, int]) -> tuple[Image, Target]:
    """Crop to `region` = (top, left, height, width) in pixels; parts of it outside the image are black.

    Boxes are clamped to the region, and `area` becomes the area of the cropped box. Objects whose box has no area left
    are dropped from every entry; in a target without boxes, those whose mask has no pixel left.
    """
    top, left, height, width = region
    cropped_image = image.crop((left, top, left + width, top + height))
    target = target.copy()
    target["size"] = torch.tensor([height, width])
    _move_keypoints(target, shift=(-left, -top))

    keep = None
    if "masks" in target:
        target["masks"] = crop_masks(target["masks"], region)  # [n, height, width]
    if "boxes" in target:
        limit = torch.tensor([width, height], dtype=torch.float32)
        corners = (target["boxes"] - torch.tensor([left, top, left, top])).reshape(-1, 2, 2)  # [n, corner, xy]
        corners = torch.minimum(corners, limit).clamp(min=0)
        target["boxes"] = corners.reshape(-1, 4)
        target["area"] = (corners[:, 1] - corners[:, 0]).prod(dim=1)
        keep = (corners[:, 1] > corners[:, 0]).all(dim=1)  # kept by its box, even if its mask is empty
    elif "masks" in target:
        keep = target["masks"].flatten(1).any(1)  # [n]
    if keep is not None:
        _keep_objects(target, keep)
    return cropped_image, target


def hflip(image: Image, target: Target) -> tuple[Image, Target]:
    """Flip horizontally. Boxes keep x0 <= x1. Keypoints move, but left and right ones keep their order."""
    width = image.width
    target = target.copy()
    if "boxes" in target:
        x0, y0, x1, y1 = target["boxes"].unbind(-1)
        target["boxes"] = torch.stack([width - x1, y0, width - x0, y1], dim=-1)  # [n, 4]
    if "masks" in target:
        target["masks"] = target["masks"].flip(-1)
    _move_keypoints(target, scale=(-1, 1), shift=(width, 0))
    return image.transpose(Transpose.FLIP_LEFT_RIGHT), target


def get_size_with_aspect_ratio(image_size: tuple[int, int], size: int, max_size: int | None = None) -> tuple[int, int]:
    """(h, w) in pixels of an image of `image_size` = (w, h) resized to a short side of `size` in the same ratio.

    If the long side would exceed `max_size`, the short side is reduced and rounded first; the long side then follows by
    truncation. It can therefore end slightly above `max_size`: 1000x200 at 1333 becomes 1335x267. This is the published
    behaviour; clamping it would shift boxes relative to the published system.

    An image more than `max_size` times as long as wide, whose short side would be less than one pixel, becomes 1 pixel
    by `max_size`; the published rule has no size for most of these. The long side thus exceeds `max_size` by a third at
    most, when a short side of 1.5 pixels is rounded to 2.
    """
    width, height = image_size
    short, long = min(width, height), max(width, height)
    if max_size is not None and long / short * size > max_size:
        if long > max_size * short:
            return (1, max_size) if height < width else (max_size, 1)
        size = int(round(max_size * short / long))
    if short == size:
        return height, width
    if width < height:
        return int(size * height / width), size
    return size, int(size * width / height)


def resize(
    image: Image, target: Target | None, size: int | Sequence[int], max_size: int | None = None
) -> tuple[Image, Target | None]:
    """Resize to a short side of `size` pixels (see `get_size_with_aspect_ratio`), or to exactly `size` = (w, h).

    Boxes and areas are scaled by the exact ratios of the sizes, masks by nearest-neighbour interpolation.
    """
    if isinstance(size, list | tuple):
        new_width, new_height = size
    else:
        new_height, new_width = get_size_with_aspect_ratio(image.size, size, max_size)
    resized = image
    if image.size != (new_width, new_height):
        resized = image.resize((new_width, new_height), Resampling.BILINEAR)
    if target is None:
        return resized, None

    scale_x, scale_y = new_width / image.width, new_height / image.height
    target = target.copy()
    target["size"] = torch.tensor([new_height, new_width])
    if "boxes" in target:
        target["boxes"] = target["boxes"] * torch.tensor([scale_x, scale_y, scale_x, scale_y])
    if "area" in target:
        target["area"] = target["area"] * (scale_x * scale_y)
    if "masks" in target:
        target["masks"] = _resize_masks(target["masks"], new_height, new_width)
    _move_keypoints(target, scale=(scale_x, scale_y))
    return resized, target


def pad(image: Image, target: Target | None, padding: tuple[int, int]) -> tuple[Image, Target | None]:
    """Pad the right and bottom with `padding` = (x, y) black pixels; masks are padded too, boxes do not change."""
    pad_x, pad_y = padding
    padded = ImageOps.expand(image, (0, 0, pad_x, pad_y))
    if target is None:
        return padded, None
    target = target.copy()
    target["size"] = torch.tensor([padded.height, padded.width])
    if "masks" in target:
        target["masks"] = torch.nn.functional.pad(target["masks"], (0, pad_x, 0, pad_y))
    return padded, target


def _keep_objects(target: Target, keep: Tensor) -> None:
    """Keep the objects with `keep` (bool [n]) in every per-object entry."""
    for name in PER_OBJECT:
        if name in target:
            target[name] = target[name][keep]


def _resize_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """Resize masks [n, h, w] by nearest-neighbour interpolation to bool [n, height, width]."""
    if len(masks) == 0:
        return masks.new_zeros((0, height, width), dtype=torch.bool)
    grown = interpolate(masks[:, None].to(torch.uint8), size=(height, width), mode="nearest")  # [n, 1, height, width]
    return grown[:, 0] > 0


def _move_keypoints(target: Target, scale: tuple[float, float] = (1, 1), shift: tuple[float, float] = (0, 0)) -> None:
    """Map the keypoints' x, y, if there are any, to scale · (x, y) + shift; visibility does not change."""
    if "keypoints" in target:
        factor, offset = torch.tensor([*scale, 1.0]), torch.tensor([*shift, 0.0])
        target["keypoints"] = target["keypoints"] * factor + offset  # [n, K, 3]


class RandomCrop:
    """Crop to `size` = (h, w) in pixels at a random position; ValueError if the image is smaller."""

    def __init__(self, size: Sequence[int]):
        self.size = size

    def __call__(self, img: Image, target: Target) -> tuple[Image, Target]:
        return crop(img, target, random_region(img, *self.size))


class RandomSizeCrop:
    """Crop at a random position to a width and height drawn from `min_size`..`max_size` pixels.

    A side of the image that is shorter than `min_size` is kept entirely.
    """

    def __init__(self, min_size: int, max_size: int):
        self.min_size = min_size
        self.max_size = max_size

    def __call__(self, img: Image, target: Target) -> tuple[Image, Target]:
        width = self._draw(img.width)
        height = self._draw(img.height)
        return crop(img, target, random_region(img, height, width))

    def _draw(self, side: int) -> int:
        longest = min(side, self.max_size)
        return random.randint(min(self.min_size, longest), longest)


class CenterCrop:
    """Crop to the central `size` = (h, w) pixels."""

    def __init__(self, size: Sequence[int]):
        self.size = size

    def __call__(self, img: Image, target: Target) -> tuple[Image, Target]:
        height, width = self.size
        top = int(round((img.height - height) / 2.0))
        left = int(round((img.width - width) / 2.0))
        return crop(img, target, (top, left, height, width))


class RandomHorizontalFlip:
    """Flip horizontally with probability `p`."""

    def __init__(self, p: float = 0.5):
        self.p = p

    def __call__(self, img: Image, target: Target) -> tuple[Image, Target]:
        if random.random() < self.p:
            return hflip(img, target)
        return img, target


class RandomResize:
    """Resize to a short side drawn from `sizes`, in pixels; `max_size` limits the long side (see `resize`)."""

    def __init__(self, sizes: Sequence[int], max_size: int | None = None):
        if not isinstance(sizes, list | tuple) or not sizes:
            raise ValueError(f"RandomResize needs a list of at least one size, got {sizes!r}")
        self.sizes = sizes
        self.max_size = max_size

    def __call__(self, img: Image, target: Target | None = None) -> tuple[Image, Target | None]:
        return resize(img, target, random.choice(self.sizes), self.max_size)


class RandomPad:
    """Pad the right and the bottom with 0..`max_pad` pixels each, drawn independently."""

    def __init__(self, max_pad: int):
        self.max_pad = max_pad

    def __call__(self, img: Image, target: Target | None) -> tuple[Image, Target | None]:
        pad_x = random.randint(0, self.max_pad)
        pad_y = random.randint(0, self.max_pad)
        return pad(img, target, (pad_x, pad_y))


class RandomSelect:
    """Apply `transforms1` with probability `p`, else `transforms2`."""

    def __init__(self, transforms1: Transform, transforms2: Transform, p: float = 0.5):
        self.transforms1 = transforms1
        self.transforms2 = transforms2
        self.p = p

    def __call__(self, img: Image, target: Target | None) -> tuple[Any, Target | None]:
        chosen = self.transforms1 if random.random() < self.p else self.transforms2
        return chosen(img, target)


class ToTensor:
    """Convert a PIL image to float32 [3, h, w] in 0..1."""

    def __call__(self, img: Image, target: Target | None) -> tuple[Tensor, Target | None]:
        return to_tensor(img), target


class RandomErasing:
    """Apply torchvision's `RandomErasing` (same parameters) to the image tensor; the target does not change."""

    def __init__(self, *args: Any, **kwargs: Any):
        from torchvision.transforms import RandomErasing as Eraser

        self.eraser = Eraser(*args, **kwargs)

    def __call__(self, img: Tensor, target: Target | None) -> tuple[Tensor, Target | None]:
        return self.eraser(img), target


class Normalize:
    """Normalise the image [3, h, w] by channel and convert boxes from xyxy pixels to cxcywh fractions of its size.

    Objects whose box has a side of exactly 0 are dropped unless `thin`: rounding can leave such slivers after a crop,
    and there is nothing to learn from them. Boxes that are not finite are kept, and `datasets.targets.check_targets`
    reports them.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean = mean
        self.std = std

    def __call__(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        return normalize(image, self.mean, self.std), self.scale_boxes(target, image.shape[:-3:-1])

    def scale_boxes(self, target: Target | None, size: tuple[int, int]) -> Target | None:
        """The target's part of it, for an image of `size` = (w, h)."""
        if target is None:
            return None
        target = target.copy()
        if "boxes" in target:
            boxes = box_xyxy_to_cxcywh(target["boxes"])
            target["boxes"] = boxes / torch.tensor([*size, *size], dtype=torch.float32)  # [n, 4]
            empty = (target["boxes"][:, 2:] == 0).any(dim=1)  # [n]
            if "thin" in target:
                empty &= ~target["thin"]
            if empty.any():
                _keep_objects(target, ~empty)
        return target


class Compose:
    """Apply the transforms in order."""

    def __init__(self, transforms: Sequence[Transform]):
        self.transforms = transforms

    def __call__(self, image: Any, target: Target | None) -> tuple[Any, Target | None]:
        for transform in self.transforms:
            image, target = transform(image, target)
        return image, target

    def __repr__(self) -> str:
        steps = "".join(f"\n    {transform}" for transform in self.transforms)
        return f"{type(self).__name__}({steps}\n)"
