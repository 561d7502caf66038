"""`AnnotatedImages`, the base class of the data sets: everything that does not depend on the annotation format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

import datasets.transforms as T
from datasets.image_reader import ImageReader
from datasets.loader import sample_generators
from util.settings import MAX_PIXELS

Columns = TypeVar("Columns", bound="ObjectColumns")


@dataclass
class ObjectColumns:
    """Objects of one or more images, one row each. A column is an array or a list, or None if absent."""

    names: np.ndarray  # int64 [N], the ids used in messages; -1 if there is none
    labels: np.ndarray  # int64 [N], category ids

    def between(self: Columns, start: int, stop: int) -> Columns:
        """Rows start..stop."""
        columns = (getattr(self, field.name) for field in fields(self))
        return type(self)(*(None if column is None else column[start:stop] for column in columns))


class AnnotatedImages(Dataset):
    """Images of a folder with their objects. A sample is (image, target) after `transforms`.

    The random choices of the transforms depend only on (seed, epoch, index); the global generators are left unchanged.
    A subclass reads one annotation format and implements the abstract methods.

    Args:
        img_folder: the folder that the images' file names are relative to.
        images: COCO's `images` entries by id.
        categories: COCO's `categories` entries, at least {"id", "name"}.
        objects: the objects of all images, grouped by image in ascending order of image ids.
        counts: the number of objects of each image.
        transforms: (image, target) → (image, target).
        seed: seed of the transforms' random choices.
        skip_bad_images: replace an image that is missing or cannot be read by the sample of the next good one, with its
            objects, id and random choices. Evaluation counts an image once, so it omits the bad ones.
        max_bad_images: the largest number of such images, in this process and its workers.
        max_pixels: an image file with more pixels counts as one that cannot be read.

    Attributes:
        ids: image ids, ascending: the order of the samples.
        categories: as given, ascending by id; `num_classes` is the largest id + 1.
        objects_per_image: `counts`, int64 [images].
        bad_images: paths of the images skipped so far; empty unless `skip_bad_images`.

    Raises:
        FileNotFoundError, OSError: see `ImageReader`.
    """

    def __init__(
        self,
        img_folder: str | Path,
        images: Mapping[int, Mapping[str, Any]],
        categories: Sequence[dict[str, Any]],
        objects: ObjectColumns,
        counts: Sequence[int],
        transforms: T.Transform | None,
        *,
        seed: int = 0,
        skip_bad_images: bool = False,
        max_bad_images: int = 10,
        max_pixels: int = MAX_PIXELS,
    ):
        self.img_folder = Path(img_folder)
        self.seed = seed
        self._transforms = transforms
        self.ids: list[int] = sorted(images)
        self.categories = sorted(categories, key=lambda category: category["id"])
        self.num_classes = max((category["id"] for category in self.categories), default=0) + 1

        # Packed into arrays, because workers would copy the millions of small objects of a parsed JSON file.
        entries = [images[image_id] for image_id in self.ids]
        self.skip_bad_images = skip_bad_images
        self._reader = ImageReader(
            self.img_folder,
            [image["file_name"] for image in entries],
            [(image.get("width") or 0, image.get("height") or 0) for image in entries],  # 0: unknown
            skip_bad=skip_bad_images,
            max_bad=max_bad_images,
            max_pixels=max_pixels,
        )
        self._objects = objects
        self.objects_per_image = np.array(counts, dtype=np.int64)
        self._starts = np.concatenate([[0], self.objects_per_image.cumsum()])  # first row of each image

        # In shared memory, so that persistent workers see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    @abstractmethod
    def images(self) -> Mapping[int, Mapping[str, Any]]:
        """COCO's `images` entries by id."""

    @abstractmethod
    def make_target(self, index: int, objects: ObjectColumns, image_size: tuple[int, int]) -> T.Target:
        """The target of sample `index`, whose image has `image_size` = (w, h), in pixels, and these objects."""

    @abstractmethod
    def annotation_rows(self) -> Iterable[Sequence[float] | np.ndarray]:
        """One row of numbers per annotation, for `datasets.loader.fingerprint`."""

    def segmentations(self) -> Iterator[bytes]:
        """The outlines that masks are learned from, for `datasets.loader.fingerprint`; none without masks."""
        return iter(())

    def object_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """(index of the sample, category id) of every object that is trained on, int64 [N] each."""
        return np.repeat(np.arange(len(self)), self.objects_per_image), self._objects.labels

    @property
    def max_pixels(self) -> int:
        """The largest number of pixels of an image file that is read."""
        return self._reader.max_pixels

    @property
    def bad_images(self) -> list[str]:
        return self._reader.bad

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the random choices of the next samples depend on."""
        self._epoch.fill_(epoch)

    def check_classes(self, num_classes: int, remedy: str | None = None) -> None:
        """Raise ValueError for the first object whose category id is not below `num_classes`.

        Args:
            remedy: what the message advises; None: to pass another --num_classes.
        """
        beyond = np.flatnonzero(self._objects.labels >= num_classes)
        if len(beyond):
            first = beyond[0]
            image = self.ids[int(np.searchsorted(self._starts, first, side="right")) - 1]
            label = int(self._objects.labels[first])
            remedy = remedy or f"pass --num_classes {int(self._objects.labels.max()) + 1}"
            raise ValueError(
                f"annotation {self._objects.names[first]} of image {image} has category {label}, but the model has "
                f"classes 0..{num_classes - 1}: {remedy}, or correct the annotation file"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Any, T.Target]:
        copy = getattr(index, "number", 0)  # of an image that the epoch holds several times, see `Repeats`
        index = range(len(self))[index]  # a negative index gives the same sample as its positive equivalent
        image, index = self._reader.read(index)
        target = self.make_target(index, self._objects.between(*self._starts[index : index + 2]), image.size)
        if self._transforms is None:
            return image, target
        with sample_generators(self.seed, int(self._epoch), index, copy):
            return self._transforms(image, target)
