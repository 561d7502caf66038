"""Annotated images: what the data sets of this package have in common, whatever their annotations look like."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

import datasets.transforms as T
from datasets.image_reader import ImageReader
from datasets.loader import sample_generators

Columns = TypeVar("Columns", bound="ObjectColumns")


@dataclass
class ObjectColumns:
    """Objects of one image or many, one row each: arrays or lists, or None where a column is absent."""

    names: np.ndarray  # int64 [N], what messages call them; -1 without
    labels: np.ndarray  # int64 [N], category ids

    def between(self: Columns, start: int, stop: int) -> Columns:
        """Rows start..stop."""
        columns = (getattr(self, field.name) for field in fields(self))
        return type(self)(*(None if column is None else column[start:stop] for column in columns))


class AnnotatedImages(Dataset):
    """Images of a folder with their objects; a sample is (image, target) after `transforms`.

    What the transforms draw depends on (seed, epoch, index) alone and leaves the global generators as they were. A kind
    of annotation adds `make_target`.

    Args:
        img_folder: where the images' file names begin.
        images: COCO's `images` entries by id.
        categories: COCO's `categories` entries, at least {"id", "name"}.
        objects: by image, in ascending order of image ids, packed.
        counts: how many of the objects each image has.
        transforms: (image, target) → (image, target).
        seed: of what the transforms draw.
        skip_bad_images: in place of an image that is missing or cannot be read give the sample of the next one that
            can, objects, id and draws included. Evaluation counts an image once, so it does without the bad ones.
        max_bad_images: how many such images to put up with; counted in this process and its workers.

    Attributes:
        ids: image ids, ascending: the order of the samples.
        categories: as given, ascending; `num_classes` is the largest id + 1.
        objects_per_image: `counts`.
        bad_images: paths of the images skipped so far; none unless `skip_bad_images`.

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
    ):
        self.img_folder = Path(img_folder)
        self.seed = seed
        self._transforms = transforms
        self.ids: list[int] = sorted(images)
        self.categories = sorted(categories, key=lambda category: category["id"])
        self.num_classes = max((category["id"] for category in self.categories), default=0) + 1

        # Packed once: workers read arrays, never the millions of small objects of a JSON file, which they would copy.
        entries = [images[image_id] for image_id in self.ids]
        self.skip_bad_images = skip_bad_images
        self._reader = ImageReader(
            self.img_folder,
            [image["file_name"] for image in entries],
            [(image.get("width") or 0, image.get("height") or 0) for image in entries],  # 0: not said
            skip_bad=skip_bad_images,
            max_bad=max_bad_images,
        )
        self._objects = objects
        self.objects_per_image = np.array(counts, dtype=np.int64)
        self._starts = np.concatenate([[0], self.objects_per_image.cumsum()])  # of image i: starts[i]..starts[i + 1]

        # In shared memory, so that workers that live on from the epoch before see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    @abstractmethod
    def images(self) -> Mapping[int, Mapping[str, Any]]:
        """COCO's `images` entries by id."""

    @abstractmethod
    def make_target(self, index: int, objects: ObjectColumns, image_size: tuple[int, int]) -> T.Target:
        """The target of sample `index`, whose image is of `image_size` = (w, h) and has these objects."""

    @abstractmethod
    def annotation_rows(self) -> Sequence[Sequence[float]] | np.ndarray:
        """Numbers that tell these annotations from others, a row for each."""

    @property
    def bad_images(self) -> list[str]:
        return self._reader.bad

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations from the next sample on."""
        self._epoch.fill_(epoch)

    def check_classes(self, num_classes: int) -> None:
        """Refuse objects that a model of classes below num_classes could not name: ValueError with the first."""
        beyond = np.flatnonzero(self._objects.labels >= num_classes)
        if len(beyond):
            first = beyond[0]
            image = self.ids[int(np.searchsorted(self._starts, first, side="right")) - 1]
            label = int(self._objects.labels[first])
            raise ValueError(
                f"annotation {self._objects.names[first]} of image {image} has category {label}, but the model has "
                f"classes 0..{num_classes - 1}: pass --num_classes {int(self._objects.labels.max()) + 1}, or correct "
                "the annotation file"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Any, T.Target]:
        index = range(len(self))[index]  # a negative index and its positive twin are one sample
        image, index = self._reader.read(index)
        target = self.make_target(index, self._objects.between(*self._starts[index : index + 2]), image.size)
        if self._transforms is None:
            return image, target
        with sample_generators(self.seed, int(self._epoch), index):
            return self._transforms(image, target)
