"""The COCO instances data set and its transforms."""

from __future__ import annotations

from argparse import Namespace
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from pycocotools.coco import COCO
from torch import Tensor

import datasets.transforms as T
from datasets.annotated_images import AnnotatedImages
from datasets.annotations.instances import Objects, pack_objects, pack_rows, read_coco, rows_of
from datasets.annotations.layout import Part, check_not_empty, locate
from datasets.annotations.masks import segmentation_to_mask
from datasets.annotations.picture_checks import check_pictures
from datasets.annotations.segmentations import check_segmentations
from datasets.augment.color_jitter import ColorJitter
from datasets.fast.compose import FastCompose
from datasets.formats.choose import ChosenData, choose_data
from util.loading.json_text import collector_paused
from util.settings import MAX_PIXELS, TRAIN_SIZES

MAX_SIZE = 1333
VAL_SIZE = 800
LONGEST_REDUCED = 100  # length over width of the image that training crops from
PARTS = (
    Part("{}_images", "{}2017", is_folder=True),
    Part("{}_ann", "annotations/instances_{}2017.json", is_folder=False),
)


class CocoDetection(AnnotatedImages):
    """Images of a folder with the objects of a COCO instances file, including images without objects.

    A sample is (image, target) after `transforms`. Before them, the target holds

        boxes          float32 [n, 4], xyxy in pixels, clamped to the image
        labels         int64 [n], category ids
        image_id       int64 [1]
        area           float32 [n], pixels
        iscrowd        int64 [n], all 0: crowd regions are omitted
        annotation_id  int64 [n], -1 if there is none
        orig_size      int64 [2] = (h, w), pixels
        size           int64 [2] = (h, w), pixels
        masks          bool [n, h, w], with `return_masks`
        keypoints      float32 [n, K, 3], if the file has them

    Args:
        img_folder, ann_file: the images and their annotations.
        transforms: (image, target) → (image, target).
        return_masks: add masks to the targets.
        read: reads the annotations instead of `ann_file`, which is then what messages name; see `read_coco`.
        seed, skip_bad_images, max_bad_images, max_pixels: see `AnnotatedImages`.

    Attributes:
        coco: the pycocotools index, including crowds, for evaluation; see `release_index`.
        problems: summary of the boxes that are clamped or dropped, empty if there are none.
        ids, categories, num_classes, bad_images: see `AnnotatedImages`; categories are {"id", "name"}.

    Raises:
        FileNotFoundError, OSError, ValueError: see `datasets.annotations.instances.read_coco` and `ImageReader`.
    """

    def __init__(
        self,
        img_folder: str | Path,
        ann_file: str | Path,
        transforms: T.Transform | None,
        return_masks: bool,
        *,
        read: Callable[[], dict[str, Any]] | None = None,
        seed: int = 0,
        skip_bad_images: bool = False,
        max_bad_images: int = 10,
        max_pixels: int = MAX_PIXELS,
    ):
        self.return_masks = return_masks
        self.ann_file = Path(ann_file)
        self._read = read
        with collector_paused():
            coco, self.problems = read_coco(ann_file, img_folder, read=read)
            if return_masks:
                check_segmentations(ann_file, coco, Path(img_folder))
            self._coco: COCO | None = coco
            self._images = coco.imgs
            annotations = coco.dataset["annotations"]
            self._rows = rows_of(annotations)
            objects, counts = pack_rows(self._rows, annotations, sorted(coco.imgs), return_masks)
            super().__init__(
                img_folder,
                coco.imgs,
                [{"id": key, "name": category["name"]} for key, category in coco.cats.items()],
                objects,
                counts,
                transforms,
                seed=seed,
                skip_bad_images=skip_bad_images,
                max_bad_images=max_bad_images,
                max_pixels=max_pixels,
            )

    @property
    def coco(self) -> COCO:
        if self._coco is None:
            coco, _ = read_coco(self.ann_file, self.img_folder, report=False, read=self._read)
            coco.dataset["images"] = list(self._images.values())
            coco.imgs = self._images
            self._coco = coco
        return self._coco

    def release_index(self) -> None:
        """Free the memory of `coco`, most of what a large file takes; `coco` reads the file again when it is used.

        Samples do not need it. With `return_masks` it stays, because the masks are drawn from its segmentations.
        """
        if not self.return_masks:
            self._coco = None

    @property
    def images(self) -> dict[int, dict[str, Any]]:
        return self._images

    def annotation_rows(self) -> np.ndarray:
        return self._rows

    def segmentations(self) -> Iterator[bytes]:
        if self.return_masks:
            yield from (_bytes_of(annotation["segmentation"]) for annotation in self.coco.dataset["annotations"])

    def make_target(self, index: int, objects: Objects, image_size: tuple[int, int]) -> T.Target:
        return make_target(objects, image_size, self.ids[index], self.return_masks)


def _bytes_of(segmentation: Any) -> bytes:
    """The numbers of a checked segmentation; an order faster than its text."""
    if isinstance(segmentation, dict):
        return repr((segmentation["size"], segmentation["counts"])).encode()
    lengths = array("q", map(len, segmentation)).tobytes()
    return lengths + b"".join([array("d", polygon).tobytes() for polygon in segmentation])


class ConvertCocoPolysToMask:
    """(image, {"image_id", "annotations": COCO dicts}) → (image, target as documented in `CocoDetection`)."""

    def __init__(self, return_masks: bool = False):
        self.return_masks = return_masks

    def __call__(self, image: Image, target: dict[str, Any]) -> tuple[Image, T.Target]:
        objects = pack_objects(target["annotations"], self.return_masks)
        return image, make_target(objects, image.size, int(target["image_id"]), self.return_masks)


def make_target(objects: Objects, image_size: tuple[int, int], image_id: int, return_masks: bool = False) -> T.Target:
    """The target of one image of `image_size` = (w, h), pixels: boxes clamped to the image, empty ones dropped.

    Raises:
        ValueError: with `return_masks`, a segmentation is unusable; the message names the annotation.
    """
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
    """COCO segmentations → bool masks [n, height, width]; see `datasets.annotations.masks.segmentation_to_mask`."""
    masks = [segmentation_to_mask(segmentation, height, width) for segmentation in segmentations]
    return torch.from_numpy(np.stack(masks) if masks else np.zeros((0, height, width), dtype=bool))


def make_coco_transforms(
    image_set: str,
    *,
    train_sizes: Sequence[int] = TRAIN_SIZES,
    max_size: int = MAX_SIZE,
    val_size: int = VAL_SIZE,
    crop: bool = True,
    flip: bool = True,
    color_jitter: float = 0,
) -> T.Compose:
    """The published augmentation (paper, section 4, "Technical details") for "train", plain resizing for "val".

    Training flips at random, then resizes to a short side from `train_sizes`, either directly or after a random crop of
    a reduced image. At the published sizes, the reduced image has a short side of 400, 500 or 600 pixels, and the
    crop has sides of 384 to 600 pixels; other sizes scale these numbers by max(train_sizes) / 800. The long side of the
    reduced image is limited to `LONGEST_REDUCED` times the largest short side, 60,000 pixels at the published sizes,
    where the published code has no limit: thinner images would fill the memory.

    Args:
        image_set: "train" or "val".
        train_sizes: short sides to draw from, pixels.
        max_size: limit of the long side, pixels.
        val_size: short side in validation, pixels.
        crop: False omits the random crop.
        flip: False omits the random flip.
        color_jitter: strength of `ColorJitter`; 0 omits it.

    Raises:
        ValueError: unknown `image_set`.
    """
    normalize = T.Compose([T.ToTensor(), T.Normalize(T.IMAGENET_MEAN, T.IMAGENET_STD)])
    if image_set == "val":
        return T.Compose([T.RandomResize([val_size], max_size=max_size), normalize])
    if image_set != "train":
        raise ValueError(f"unknown image set {image_set!r}: use 'train' or 'val'")

    resize: T.Transform = T.RandomResize(list(train_sizes), max_size=max_size)
    if crop:
        scale = max(train_sizes) / 800
        reduced, sides = ([max(1, round(side * scale)) for side in sides] for sides in ((400, 500, 600), (384, 600)))
        cropped = T.Compose([T.RandomResize(reduced, LONGEST_REDUCED * max(reduced)), T.RandomSizeCrop(*sides), resize])
        resize = T.RandomSelect(resize, cropped)
    flips = [T.RandomHorizontalFlip()] if flip else []
    colors = [ColorJitter(color_jitter)] if color_jitter else []
    return FastCompose([*flips, resize, *colors, normalize])


def build(image_set: str, args: Namespace, data: ChosenData | None = None) -> CocoDetection:
    """The "train" or "val" data set of the command line.

    Args:
        data: as from `choose_data`; found anew if it is None.

    Raises:
        FileNotFoundError, ValueError: names the flag to correct.
    """
    data = data or choose_data(args)
    if data:
        part = data.train if image_set == "train" else data.val
        img_folder, ann_file, read = part.images, part.source, part.read
    else:
        (img_folder, ann_file), read = locate(image_set, args, PARTS), None
    transforms = build_transforms(image_set, args)
    dataset = CocoDetection(img_folder, ann_file, transforms, args.masks, read=read, **loading(args))
    check_not_empty(dataset, image_set, ann_file, "folder with --data" if data else None)
    check_pictures(dataset, every=image_set == "val")
    if image_set == "train":
        dataset.release_index()
    return dataset


def build_transforms(image_set: str, args: Namespace) -> T.Compose:
    """`make_coco_transforms` with the settings from the command line."""
    return make_coco_transforms(
        image_set,
        train_sizes=getattr(args, "train_sizes", None) or TRAIN_SIZES,
        max_size=getattr(args, "max_size", None) or MAX_SIZE,
        val_size=getattr(args, "val_size", None) or VAL_SIZE,
        crop=not getattr(args, "no_crop", False),
        flip=not getattr(args, "no_flip", False),
        color_jitter=getattr(args, "color_jitter", 0),
    )


def loading(args: Namespace) -> dict[str, Any]:
    """The settings of the command line that every `AnnotatedImages` takes, as keyword arguments."""
    defaults = {"seed": 0, "skip_bad_images": False, "max_bad_images": 10, "max_pixels": MAX_PIXELS}
    return {name: getattr(args, name, default) for name, default in defaults.items()}
