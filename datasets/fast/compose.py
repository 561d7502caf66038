"""`FastCompose`: training's transforms, computed on bytes."""

from __future__ import annotations

from typing import Any

from PIL.Image import Image

import datasets.transforms as T
from datasets.augment.color_jitter import ColorJitter
from datasets.fast.byte_image import ByteImage

# The transforms that take a ByteImage
MOVES = (T.RandomHorizontalFlip, T.RandomResize, T.RandomCrop, T.RandomSizeCrop, ColorJitter)


class FastCompose(T.Compose):
    """`Compose` for training: the same random choices, sizes and targets, and pixels within 2 of 255.

    `Compose(it.transforms)` is the plain form. It is also used for images that are not RGB, and unless the transforms
    are flips, resizes, crops and changes of colours, followed by `Compose([ToTensor, Normalize])`.
    """

    def __call__(self, image: Any, target: T.Target | None) -> tuple[Any, T.Target | None]:
        if not (isinstance(image, Image) and image.mode == "RGB" and self._is_fast()):
            return super().__call__(image, target)
        *moves, last = self.transforms
        view, target = T.Compose(moves)(ByteImage.of(image), target)
        normalize = last.transforms[1]
        return view.normalized(normalize.mean, normalize.std), normalize.scale_boxes(target, view.size)

    def _is_fast(self) -> bool:
        *moves, last = self.transforms or [None]
        if type(last) is not T.Compose or [type(step) for step in last.transforms] != [T.ToTensor, T.Normalize]:
            return False
        return all(map(_takes_bytes, moves))


def _takes_bytes(step: T.Transform) -> bool:
    """Whether a transform works on a `ByteImage`. A subclass may do anything, so it does not."""
    if type(step) is T.RandomSelect:
        return _takes_bytes(step.transforms1) and _takes_bytes(step.transforms2)
    if type(step) is T.Compose:
        return all(map(_takes_bytes, step.transforms))
    return type(step) in MOVES
