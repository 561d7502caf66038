"""Images one after the other, from an iterator of any length → predictions, in order and in bounded memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from PIL import Image

from util.errors import OpenFilesError, one_sentence

RAISE, SKIP = "raise", "skip"


def predictions_of(
    images: Iterable[Any],
    read: Callable[[Any], Image.Image],
    predict: Callable[[Sequence[Image.Image]], list[Any]],
    at_once: int,
    on_error: str,
) -> Iterator[Any]:
    """Take `at_once` images, predict for them, yield, and go on.

    Args:
        images: of any kind that `read` takes.
        read: one of them → RGB.
        predict: RGB images → their predictions.
        at_once: images in memory.
        on_error: "raise", or "skip": an image that cannot be used gives None and a warning, and the others go on.
    """
    source, first = iter(images), 0
    while part := list(islice(source, at_once)):
        rgb: dict[int, Image.Image] = {}
        for index, image in enumerate(part):
            with _skipping(first + index, on_error):
                rgb[index] = read(image)
        found: dict[int, Any] = {}
        try:
            found = dict(zip(rgb, predict(list(rgb.values()))))
        except ValueError:  # such as an image too small for the model: only that one is left out
            if on_error == RAISE:
                raise
            for index, image in rgb.items():
                with _skipping(first + index, on_error):
                    found[index] = predict([image])[0]
        yield from (found.get(index) for index in range(len(part)))
        first += len(part)


class _skipping:
    """Context that turns the error of one image into a warning, if `on_error` is "skip"."""

    def __init__(self, number: int, on_error: str) -> None:
        self.number, self.on_error = number, on_error

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if self.on_error != SKIP or not isinstance(error, OSError | ValueError) or isinstance(error, OpenFilesError):
            return False
        warnings.warn(f"image {self.number} is skipped: {one_sentence(error)}", stacklevel=2)
        return True
