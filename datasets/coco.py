"""COCO instances: image file and annotations → image and target."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset

import datasets.transforms as T
from datasets.annotations import Objects, pack_objects, read_coco
from datasets.image_files import ImageFiles
from datasets.loader import sample_generators
from datasets.masks import segmentation_to_mask
from util.arguments import TRAIN_SIZES
from util.visualize import IMAGENET_MEAN, IMAGENET_STD

MAX_SIZE = 1333
VAL_SIZE = 800


class CocoDetection(Dataset):
    """Images of a folder with the objects of a COCO instances file; images without objects are among them.

    A sample is (image, target) after `transforms`; the target holds boxes float32 [n, 4] (xyxy pixels, or what the
    transforms make of them), labels int64 [n] (category ids as they are), image_id int64 [1], area float32 [n],
    iscrowd int64 [n] (all 0: crowd regions are left out), annotation_id int64 [n] (-1 without), orig_size and size
    int64 [2] = (h, w), masks bool [n, h, w] with `return_masks`, and keypoints float32 [n, K, 3] where the file has
    them.

    What the transforms draw depends on (seed, epoch, index) alone and leaves the global generators as they were.

    Args:
        img_folder, ann_file: the images and their annotations.
        transforms: (image, target) → (image, target).
        return_masks: put masks into the targets.
        seed: of what the transforms draw.
        skip_bad_images: in place of an image that is missing or cannot be read give the sample of the next one that
            can, objects, id and draws included. Evaluation counts an image once, so it does without the bad ones.
        max_bad_images: how many such images to put up with; counted in this process and its workers.

    Attributes:
        coco: the pycocotools index, with crowds, for evaluation.
        ids: image ids, ascending: the order of the samples.
        categories: [{"id", "name"}], ascending; `num_classes` is the largest id + 1.
        problems: one sentence on boxes that are clamped or dropped, empty if there are none.
        bad_images: paths of the images skipped so far.

    Raises:
        FileNotFoundError, OSError, ValueError: see `datasets.annotations.read_coco` and `ImageFiles`.
    """

    def __init__(
        self,
        img_folder: str | Path,
        ann_file: str | Path,
        transforms: T.Transform | None,
        return_masks: bool,
        *,
        seed: int = 0,
        skip_bad_images: bool = False,
        max_bad_images: int = 10,
    ):
        self.img_folder = Path(img_folder)
        self.return_masks = return_masks
        self.seed = seed
        self._transforms = transforms
        self.coco, self.problems = read_coco(ann_file)
        self.ids: list[int] = sorted(self.coco.imgs)
        self.categories = [{"id": key, "name": self.coco.cats[key]["name"]} for key in sorted(self.coco.cats)]
        self.num_classes = max((category["id"] for category in self.categories), default=0) + 1

        # Packed once: workers read arrays, never the millions of small objects in `coco`, which they would copy.
        images = [self.coco.imgs[image_id] for image_id in self.ids]
        self._files = ImageFiles(
            self.img_folder,
            [image["file_name"] for image in images],
            [(image.get("width") or 0, image.get("height") or 0) for image in images],  # 0: not said
            skip_bad=skip_bad_images,
            max_bad=max_bad_images,
        )
        per_image = [[a for a in self.coco.imgToAnns.get(i, ()) if not a["iscrowd"]] for i in self.ids]
        self._objects = pack_objects([annotation for group in per_image for annotation in group], return_masks)
        self._starts = np.cumsum([0, *map(len, per_image)])  # objects of image i: starts[i]..starts[i + 1]

        # In shared memory, so that workers that live on from the epoch before see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def bad_images(self) -> list[str]:
        return self._files.bad

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
        image, index = self._files.read(index)
        objects = self._objects.between(self._starts[index], self._starts[index + 1])
        target = make_target(objects, image.size, self.ids[index], self.return_masks)
        if self._transforms is None:
            return image, target
        with sample_generators(self.seed, int(self._epoch), index):
            return self._transforms(image, target)


class ConvertCocoPolysToMask:
    """(image, {"image_id", "annotations": COCO dicts}) → (image, target as in `CocoDetection`)."""

    def __init__(self, return_masks: bool = False):
        self.return_masks = return_masks

    def __call__(self, image: Image, target: dict[str, Any]) -> tuple[Image, T.Target]:
        objects = pack_objects(target["annotations"], self.return_masks)
        return image, make_target(objects, image.size, int(target["image_id"]), self.return_masks)


def make_target(objects: Objects, image_size: tuple[int, int], image_id: int, return_masks: bool = False) -> T.Target:
    """The target of one image of `image_size` = (w, h): boxes clamped to it, those without size dropped."""
    width, height = image_size
    boxes = objects.boxes.clip(0, np.array([width, height, width, height], dtype=np.float32))  # [N, 4]
    keep = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # [N], n of them
    labels = torch.from_numpy(objects.labels[keep])
    target = {
        "boxes": torch.from_numpy(boxes[keep]),  # [n, 4]
        "labels": labels,
        "image_id": torch.tensor([image_id]),
        "area": torch.from_numpy(objects.area[keep]),
        "iscrowd": torch.zeros_like(labels),
        "annotation_id": torch.from_numpy(objects.names[keep]),
        "orig_size": torch.tensor([height, width]),
        "size": torch.tensor([height, width]),
    }
    if return_masks:
        masks = np.zeros((len(labels), height, width), dtype=bool)
        for mask, row in zip(masks, np.flatnonzero(keep), strict=True):
            try:
                mask[:] = segmentation_to_mask(objects.segmentations[row], height, width)
            except ValueError as error:
                raise ValueError(f"annotation {objects.names[row]} of image {image_id} has {error}") from error
        target["masks"] = torch.from_numpy(masks)  # [n, h, w]
    if objects.keypoints is not None:
        target["keypoints"] = torch.from_numpy(objects.keypoints[keep])  # [n, K, 3]
    return target


def convert_coco_poly_to_mask(segmentations: Sequence[Any], height: int, width: int) -> Tensor:
    """COCO segmentations → bool masks [n, height, width]; see `datasets.masks.segmentation_to_mask`."""
    masks = [segmentation_to_mask(segmentation, height, width) for segmentation in segmentations]
    return torch.from_numpy(np.stack(masks) if masks else np.zeros((0, height, width), dtype=bool))


def make_coco_transforms(
    image_set: str,
    *,
    train_sizes: Sequence[int] = TRAIN_SIZES,
    max_size: int = MAX_SIZE,
    val_size: int = VAL_SIZE,
    crop: bool = True,
) -> T.Compose:
    """The published augmentation (paper, section 4, "Technical details") for "train", plain resizing for "val".

    Training flips, then takes one of two ways to a short side out of `train_sizes`: directly, or through a crop of a
    reduced image; `crop=False` leaves only the first. At the published sizes the reduced image has a short side of
    400, 500 or 600 and the crop sides of 384 to 600 pixels; other sizes scale these by max(train_sizes) / 800.
    """
    normalize = T.Compose([T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    if image_set == "val":
        return T.Compose([T.RandomResize([val_size], max_size=max_size), normalize])
    if image_set != "train":
        raise ValueError(f"unknown image set {image_set!r}: there are 'train' and 'val'")

    resize: T.Transform = T.RandomResize(list(train_sizes), max_size=max_size)
    if crop:
        scale = max(train_sizes) / 800
        reduced, sides = ([max(1, round(side * scale)) for side in sides] for sides in ((400, 500, 600), (384, 600)))
        cropped = T.Compose([T.RandomResize(reduced), T.RandomSizeCrop(*sides), resize])
        resize = T.RandomSelect(resize, cropped)
    return T.Compose([T.RandomHorizontalFlip(), resize, normalize])


def build(image_set: str, args: Namespace) -> CocoDetection:
    """The "train" or "val" data set of the command line; FileNotFoundError or ValueError names the flag to correct."""
    img_folder, ann_file = _locate(image_set, args)
    transforms = make_coco_transforms(
        image_set,
        train_sizes=getattr(args, "train_sizes", None) or TRAIN_SIZES,
        max_size=getattr(args, "max_size", None) or MAX_SIZE,
        val_size=getattr(args, "val_size", None) or VAL_SIZE,
        crop=not getattr(args, "no_crop", False),
    )
    return CocoDetection(
        img_folder,
        ann_file,
        transforms,
        args.masks,
        seed=getattr(args, "seed", 0),
        skip_bad_images=getattr(args, "skip_bad_images", False),
        max_bad_images=getattr(args, "max_bad_images", 10),
    )


def _locate(image_set: str, args: Namespace) -> tuple[Path, Path]:
    """(image folder, annotation file): what --{train,val}_images and --{train,val}_ann name, else under --coco_path."""
    if image_set not in ("train", "val"):
        raise ValueError(f"unknown image set {image_set!r}: there are 'train' and 'val'")
    root = getattr(args, "coco_path", None)
    found = []
    for flag, layout, is_there in (
        (f"{image_set}_images", f"{image_set}2017", Path.is_dir),
        (f"{image_set}_ann", f"annotations/instances_{image_set}2017.json", Path.is_file),
    ):
        named = getattr(args, flag, None)
        if not named and not root:
            raise ValueError(f"no {image_set} data: pass --coco_path, or --{image_set}_ann and --{image_set}_images")
        path = Path(named) if named else Path(root) / layout
        if not is_there(path):
            kind = "folder" if is_there is Path.is_dir else "file"
            source = f"--{flag}" if named else "--coco_path"
            remedy = "" if named else f"; it must hold {layout}, or name the {kind} with --{flag}"
            raise FileNotFoundError(f"{source}: there is no {kind} {path}{remedy}")
        found.append(path)
    return found[0], found[1]
