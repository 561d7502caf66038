"""The few training pictures that `--overfit` trains and evaluates on, without augmentation."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from torch.utils.data import Subset

from datasets.annotated_images import AnnotatedImages
from datasets.coco import CocoDetection, build_transforms
from datasets.coco_panoptic import CocoPanoptic
from util.logging import get_logger

CACHED = 64  # up to so many samples are kept in memory
NAMED = 8  # pictures whose ids are logged


class FewPictures(Subset):
    """Some pictures of a data set, resized as in evaluation and otherwise unchanged.

    Args:
        dataset: the training part.
        indices: of the pictures in it.
        args: the settings; those of the evaluation's sizes count.

    Attributes:
        img_folder, ann_file, ann_folder, categories, num_classes: those of the whole part.
        ids, objects_per_image: of the pictures.
        skip_bad_images: True, so that the ground truth may have pictures without predictions.
        annotations: image id → its annotations {"id", "category_id", "iscrowd", "bbox"}; empty for panoptic data, whose
            annotations have no boxes.
    """

    skip_bad_images = True

    def __init__(self, dataset: AnnotatedImages, indices: Sequence[int], args: argparse.Namespace) -> None:
        plain = copy.copy(dataset)
        plain._transforms = build_transforms("val", args)
        super().__init__(plain, list(indices))
        self.img_folder, self.ann_file = dataset.img_folder, dataset.ann_file
        self.ann_folder: Path | None = getattr(dataset, "ann_folder", None)
        self.categories, self.num_classes = dataset.categories, dataset.num_classes
        self.ids = [dataset.ids[index] for index in self.indices]
        self.objects_per_image = dataset.objects_per_image[self.indices]
        self.annotations = _annotations(dataset, self.ids) if isinstance(dataset, CocoDetection) else {}
        self._coco: COCO | None = None
        self._cache: dict[int, Any] = {}

    @property
    def coco(self) -> COCO:
        """The ground truth: of these pictures at least, perhaps of the whole part."""
        if self._coco is None:
            dataset = self.dataset
            if isinstance(dataset, CocoPanoptic) and dataset.instances_file is None:
                dataset = _without_other_pictures(dataset, self.indices)
            self._coco = dataset.coco
        return self._coco

    def check_classes(self, num_classes: int, remedy: str | None = None) -> None:
        self.dataset.check_classes(num_classes, remedy)

    def __getitem__(self, index: int) -> Any:
        if index not in self._cache:
            sample = self.dataset[self.indices[index]]
            if len(self) > CACHED:
                return sample
            self._cache[index] = sample
        return self._cache[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return [self[index] for index in indices]


def few_pictures(dataset: AnnotatedImages, args: argparse.Namespace, count: int | None = None) -> FewPictures:
    """`count` pictures with objects, `args.overfit` by default, taken at even distances from the whole part.

    Raises:
        ValueError: no picture has an object.
    """
    count = args.overfit if count is None else count
    filled = np.flatnonzero(dataset.objects_per_image)
    if not len(filled):
        raise ValueError(f"{dataset.ann_file}: none of the {len(dataset)} pictures has an object that could be learned")
    chosen = np.linspace(0, len(filled) - 1, min(count, len(filled))).round().astype(int)
    return FewPictures(dataset, filled[chosen].tolist(), args)


def overfit_settings(args: argparse.Namespace, few: FewPictures) -> dict[str, Any]:
    """The settings that `--overfit` changes: what hinders learning by heart, or what few pictures cannot fill.

    Returns:
        Name → value.
    """
    batch_size = min(args.batch_size, len(few))
    return {
        "batch_size": batch_size,
        "accumulate": min(args.accumulate, len(few) // batch_size),
        "dropout": 0.0,
        "ema": 0.0,
        "eval_no_pad": False,
        "group_by_aspect": False,
        "max_dets": max(args.max_dets, int(few.objects_per_image.max())),
        "num_workers": 0 if len(few) <= CACHED else args.num_workers,
    }


def announce(args: argparse.Namespace, few: FewPictures) -> None:
    """Log which pictures are learned, and how."""
    more = f" and {len(few) - NAMED} more" if len(few) > NAMED else ""
    ids = ", ".join(map(str, few.ids[:NAMED])) + more
    if len(few) < args.overfit:
        whole = f"{len(few)} picture{'s' * (len(few) != 1)} of the training part with an object"
        get_logger().warning(f"--overfit {args.overfit}: there {'is' if len(few) == 1 else 'are'} only {whole}")
    objects = int(few.objects_per_image.sum())
    get_logger().info(
        f"overfit: {len(few)} of {len(few.dataset)} training pictures (ids {ids}) with {objects} "
        f"object{'s' * (objects != 1)}, short side {args.val_size}, without augmentation and dropout"
    )


def _annotations(dataset: CocoDetection, image_ids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """The annotations of these images, from the data set's rows: its index may have been released."""
    rows = dataset.annotation_rows()  # [N, 8]: id, image, category, crowd, x, y, width, height
    found: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in image_ids}
    for number, image_id, category, crowd, *box in rows[np.isin(rows[:, 1], image_ids)].tolist():
        entry = {"id": int(number), "category_id": int(category), "iscrowd": int(crowd), "bbox": box}
        found[int(image_id)].append(entry)
    return found


def _without_other_pictures(dataset: CocoPanoptic, indices: Sequence[int]) -> CocoPanoptic:
    """A copy whose ground truth is read from the PNG files of some pictures only; it serves for nothing else."""
    few = copy.copy(dataset)
    few.__dict__.pop("coco", None)
    rows = np.concatenate([np.arange(*dataset._starts[index : index + 2]) for index in indices])
    objects = dataset._objects
    few._objects = type(objects)(*(getattr(objects, name)[rows] for name in objects.__dataclass_fields__))
    few.ids = [dataset.ids[index] for index in indices]
    few._map_names = [dataset._map_names[index] for index in indices]
    few.objects_per_image = dataset.objects_per_image[list(indices)]
    return few
