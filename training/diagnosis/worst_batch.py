"""The largest batch that training can draw, and ordinary batches, for the trial before the first epoch."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from PIL.Image import Image

import datasets.transforms as T
from datasets.annotated_images import AnnotatedImages
from datasets.augment.repeats import Repeats
from datasets.same_size import resized_sizes
from util.nested_tensor import NestedTensor, collate_fn

Batch = tuple[NestedTensor, tuple[T.Target, ...]]
Limits = tuple[int, int | None]  # a short side and the limit of the long side, pixels


def worst_batch(
    dataset: AnnotatedImages, batch_size: int, *, pad_multiple: int = 1, repeats: Repeats | None = None
) -> Batch:
    """The images with the most objects, stretched to the size of the largest batch that training can draw.

    No batch of the training has more pixels, including padding, or more objects. Images are stretched instead of
    padded: the cost of a batch depends on its size, not on its content. The global random generators are not used.

    Args:
        dataset: with the transforms of `make_coco_transforms("train", ...)`.
        batch_size: B; a smaller data set gives a batch of all its images.
        pad_multiple: batches are padded to multiples of this many pixels.
        repeats: how often an epoch holds each image; None: once.

    Returns:
        (samples [B, 3, H, W], targets), normalised as in training.

    Raises:
        ValueError: the data set's transforms do not resize.
        OSError: an image cannot be read.
    """
    size, max_size, crops, reduced = _resizing(dataset._transforms)
    # A smaller short side makes neither side longer, so only the largest one matters.
    views = {view for view in resized_sizes(dataset, size, max_size) if view is not None}
    if crops is not None:
        reductions = resized_sizes(dataset, *reduced) if reduced is not None else []
        thinnest = min((min(view) for view in reductions if view is not None), default=crops[0])
        views |= crop_views((min(crops[0], thinnest), crops[1]), size, max_size)
    order = np.argsort(-objects_per_image(dataset), kind="stable")
    fullest = np.repeat(order, 1 if repeats is None else repeats.most()[order])[:batch_size].tolist()
    height, width = largest_size(views or {(size, size)}, len(fullest))

    def stretch(image: Image, target: T.Target) -> tuple[Image, T.Target]:
        return T.resize(image, target, (width, height))

    stretched = copy.copy(dataset)
    stretched._transforms = T.Compose([stretch, T.ToTensor(), T.Normalize(T.IMAGENET_MEAN, T.IMAGENET_STD)])
    return collate_fn([stretched[index] for index in fullest], pad_multiple=pad_multiple)


def typical_batches(
    dataset: AnnotatedImages, batch_size: int, count: int, *, seed: int = 0, pad_multiple: int = 1
) -> list[Batch]:
    """`count` batches of images drawn with `seed`, as training sees them in the data set's current epoch.

    The global random generators are not used.
    """
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
    batch_size = min(batch_size, len(order))
    drawn = [order[k % len(order)] for k in range(count * batch_size)]
    return [
        collate_fn([dataset[i] for i in drawn[k : k + batch_size]], pad_multiple=pad_multiple)
        for k in range(0, len(drawn), batch_size)
    ]


def objects_per_image(dataset: AnnotatedImages) -> np.ndarray:
    """Number of objects of each image, int64 [images], in the order of `dataset.ids`; crowds count if trained on."""
    return dataset.objects_per_image


def crop_views(sides: tuple[int, int], size: int, max_size: int | None) -> set[tuple[int, int]]:
    """(h, w) in pixels of every crop with sides in `sides` = (shortest, longest), resized to a short side of `size`.

    `RandomSizeCrop` gives shorter sides than its own only in images that are thinner still.
    """
    lengths = range(sides[0], sides[1] + 1)
    return {T.get_size_with_aspect_ratio((width, height), size, max_size) for width in lengths for height in lengths}


def largest_size(views: Iterable[tuple[int, int]], batch_size: int) -> tuple[int, int]:
    """(H, W) of the largest padded batch of images whose sizes are among `views`, (h, w) in pixels.

    A batch is as high as its highest image and as wide as its widest, which can be different images. A single image is
    not padded, so its area decides.
    """
    if batch_size == 1:
        return max(views, key=lambda view: view[0] * view[1])
    return max(height for height, _ in views), max(width for _, width in views)


def _resizing(transforms: T.Transform | None) -> tuple[int, int | None, tuple[int, int] | None, Limits | None]:
    """The sizes in pixels that decide how large a view can be.

    Returns:
        The largest short side and the limit of the long side; the shortest and the longest side of a preceding crop, or
        None; the smallest short side and the limit of the long side of the image that is cropped, or None.
    """
    steps = list(_steps(transforms))
    resizes = [step for step in steps if isinstance(step, T.RandomResize)]
    if not resizes:
        raise ValueError("the data set's transforms do not resize, so its largest batch is unknown")
    last = resizes[-1]
    crops = [index for index, step in enumerate(steps) if isinstance(step, T.RandomSizeCrop)]
    if not crops:
        return max(last.sizes), last.max_size, None, None
    crop, before = steps[crops[-1]], steps[crops[-1] - 1] if crops[-1] else None
    reduced = (min(before.sizes), before.max_size) if isinstance(before, T.RandomResize) else None
    return max(last.sizes), last.max_size, (crop.min_size, crop.max_size), reduced


def _steps(transform: T.Transform | None) -> Iterator[T.Transform]:
    """All elementary transforms, in order."""
    if isinstance(transform, T.Compose):
        inner = transform.transforms
    elif isinstance(transform, T.RandomSelect):
        inner = [transform.transforms1, transform.transforms2]
    else:
        yield transform
        return
    for step in inner:
        yield from _steps(step)
