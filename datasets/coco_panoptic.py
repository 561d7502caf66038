"""The COCO panoptic data set: images, PNG files of segment ids, and a JSON file of segments."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO

import datasets.transforms as T
from datasets.annotated_images import AnnotatedImages, ObjectColumns
from datasets.annotations.file_names import hint_at
from datasets.annotations.headers import Size, annotated_size, read_header
from datasets.annotations.instances import read_coco
from datasets.annotations.layout import Part, check_not_empty, locate
from datasets.annotations.panoptic import read_panoptic
from datasets.annotations.picture_checks import check_readable, look_at, settle_sizes
from datasets.annotations.rules import preview
from datasets.annotations.segment_maps import VOID, read_segment_map
from datasets.annotations.segmentations import check_segmentations
from datasets.annotations.things import things_as_instances
from datasets.coco import build_transforms, loading
from datasets.image_reader import find_missing
from util.box_ops import masks_to_boxes
from util.coco_names import COCO_NAMES, COCO_STUFF, PANOPTIC_NUM_CLASSES
from util.settings import MAX_PIXELS

ROOTS = ("coco_panoptic_path", "coco_path")
PARTS = (
    Part("{}_images", "{}2017", is_folder=True),
    Part("{}_ann", "annotations/panoptic_{}2017.json", is_folder=False, roots=ROOTS),
    Part("{}_panoptic", "panoptic_{}2017", is_folder=True, roots=ROOTS),
)
INSTANCES = "annotations/instances_{}2017.json"  # below --coco_path, optional


@dataclass
class Segments(ObjectColumns):
    """The segments of one or more images. `names` holds the segment ids, unique within an image."""

    area: np.ndarray  # float32 [N], pixels; NaN: unknown
    iscrowd: np.ndarray  # int64 [N]


class CocoPanoptic(AnnotatedImages):
    """Images of a folder with the segments, things and stuff, of a COCO panoptic file and its folder of PNG files.

    Images and PNG files are matched by image id. A sample is (image, target) after `transforms`. Before them, the
    target holds

        boxes          float32 [n, 4], xyxy in pixels, around the masks (see `util.box_ops.masks_to_boxes`)
        labels         int64 [n], category ids
        image_id       int64 [1]
        area           float32 [n], pixels: as annotated, else counted in the PNG
        iscrowd        int64 [n]
        annotation_id  int64 [n], segment ids
        orig_size      int64 [2] = (h, w), pixels
        size           int64 [2] = (h, w), pixels
        masks          bool [n, h, w], with `return_masks`
        thin           bool [n], boxes with a width or height of 0

    As published, crowds are kept and boxes go from the first to the last covered column and row, so the box of a
    segment one pixel wide has width 0. Its loss is finite. `thin` distinguishes it from an invalid box without size,
    which later stages drop or reject. A crop drops it, also as published.

    Args:
        img_folder: folder of the images.
        ann_folder: folder of the PNG files.
        ann_file: the panoptic JSON file.
        transforms: (image, target) → (image, target).
        return_masks: add masks to the targets.
        instances_file: the COCO instances file of the same images, for `coco`.
        seed, skip_bad_images, max_bad_images, max_pixels: see `AnnotatedImages`.

    Attributes:
        coco: ground truth for evaluating boxes and masks: `instances_file`, as published, else the thing segments.
            Read on first use.
        categories: {"id", "name", "isthing"}, `isthing` 1 for things and 0 for stuff.
        num_classes: the largest category id + 1; for COCO's own 133 categories the published 250.
        ids, bad_images: see `AnnotatedImages`.

    Raises:
        FileNotFoundError, OSError, ValueError: see `read_panoptic` and `ImageReader`, or PNG files are missing. Reading
            a sample raises ValueError if its image, PNG and JSON contradict each other.
    """

    def __init__(
        self,
        img_folder: str | Path,
        ann_folder: str | Path,
        ann_file: str | Path,
        transforms: T.Transform | None = None,
        return_masks: bool = True,
        *,
        instances_file: str | Path | None = None,
        seed: int = 0,
        skip_bad_images: bool = False,
        max_bad_images: int = 10,
        max_pixels: int = MAX_PIXELS,
    ):
        self.ann_folder = Path(ann_folder)
        self.ann_file = Path(ann_file)
        self.instances_file = instances_file
        self.return_masks = return_masks
        content = read_panoptic(ann_file, img_folder)
        self._images = content.images
        annotations = [content.annotations[image_id] for image_id in sorted(content.images)]
        self._map_names = [annotation["file_name"] for annotation in annotations]
        check_maps(self.ann_folder, self._map_names)
        segments = [segment for annotation in annotations for segment in annotation["segments_info"]]
        areas = [np.nan if segment["area"] is None else segment["area"] for segment in segments]
        super().__init__(
            img_folder,
            content.images,
            [{key: category[key] for key in ("id", "name", "isthing")} for category in content.categories],
            Segments(
                names=_column(segments, "id"),
                labels=_column(segments, "category_id"),
                area=np.array(areas, dtype=np.float32),
                iscrowd=_column(segments, "iscrowd"),
            ),
            [len(annotation["segments_info"]) for annotation in annotations],
            transforms,
            seed=seed,
            skip_bad_images=skip_bad_images,
            max_bad_images=max_bad_images,
            max_pixels=max_pixels,
        )
        if {category["id"] for category in self.categories} == {*COCO_NAMES, *COCO_STUFF}:
            self.num_classes = PANOPTIC_NUM_CLASSES  # although the ids end at 200

    @property
    def images(self) -> dict[int, dict[str, Any]]:
        return self._images

    @cached_property
    def coco(self) -> COCO:
        if self.instances_file is not None:
            coco = read_coco(self.instances_file, self.img_folder)[0]
            if self.return_masks:
                check_segmentations(self.instances_file, coco, self.img_folder)
                settle_sizes(coco.imgs, look_at(list(coco.imgs.values()), self.img_folder, every=True))
            return coco
        segments = self._objects
        rows = zip(segments.names.tolist(), segments.labels.tolist(), segments.iscrowd.tolist())
        rows = [dict(zip(("id", "category_id", "iscrowd"), row)) for row in rows]
        ends = np.cumsum(self.objects_per_image).tolist()
        maps = (
            (image_id, self.ann_folder / name, rows[start:end])
            for image_id, name, start, end in zip(self.ids, self._map_names, [0, *ends], ends)
        )
        return things_as_instances(self._images, self.categories, maps)

    def annotation_rows(self) -> np.ndarray:
        segments = self._objects
        image_ids = np.repeat(self.ids, self.objects_per_image)
        return np.stack([segments.names, image_ids, segments.labels, segments.iscrowd, segments.area], axis=1)

    def get_height_and_width(self, idx: int) -> tuple[int, int]:
        """(h, w) of sample `idx` in pixels: as annotated, else the size of its PNG."""
        image = self._images[self.ids[idx]]
        if image.get("height") and image.get("width"):
            return image["height"], image["width"]
        return read_segment_map(self.ann_folder / self._map_names[idx], self.max_pixels).shape

    def check_pictures(self) -> None:
        """Compare the headers of all images and PNG files, before any training.

        Raises:
            OSError: a file is no image; with `skip_bad_images` it is skipped later.
            ValueError: a PNG has not the size of its image.
        """
        headers = look_at(list(self._images.values()), self.img_folder, every=True, max_pixels=self.max_pixels)
        check_readable(self, headers)
        for image_id, name in zip(self.ids, self._map_names, strict=True):
            image, segments = headers[image_id], read_header(self.ann_folder / name)
            if image is None or segments is None:
                continue  # reading the two will say what is wrong
            self._check_map_size(
                image_id, name, segments.size, image.is_read_as(annotated_size(self._images[image_id]))
            )

    def make_target(self, index: int, objects: Segments, image_size: tuple[int, int]) -> T.Target:
        width, height = image_size
        ids = read_segment_map(self.ann_folder / self._map_names[index], self.max_pixels)  # [h, w]
        self._check_map_size(self.ids[index], self._map_names[index], ids.shape[::-1], image_size)
        counted = self._count(index, ids, objects)
        masks = torch.from_numpy(ids == objects.names[:, None, None].astype(np.int32))  # [n, h, w]
        boxes = masks_to_boxes(masks)
        target = {
            "boxes": boxes,  # [n, 4]
            "labels": torch.tensor(objects.labels),
            "image_id": torch.tensor([self.ids[index]]),
            "area": torch.tensor(np.where(np.isnan(objects.area), counted, objects.area), dtype=torch.float32),
            "iscrowd": torch.tensor(objects.iscrowd),
            "annotation_id": torch.tensor(objects.names),
            "orig_size": torch.tensor([height, width]),
            "size": torch.tensor([height, width]),
            "thin": (boxes[:, 2:] == boxes[:, :2]).any(dim=1),
        }
        if self.return_masks:
            target["masks"] = masks
        return target

    def _check_map_size(self, image_id: int, name: str, found: Size, wanted: Size) -> None:
        if found != wanted:
            raise ValueError(
                f"panoptic map {self.ann_folder / name} is {found[0]}x{found[1]} pixels, but image {image_id} is "
                f"{wanted[0]}x{wanted[1]}: it must have the image's size"
            )

    def _count(self, index: int, ids: np.ndarray, segments: Segments) -> np.ndarray:
        """Pixels of each segment, int64 [n]; ValueError if the PNG and the JSON file have different segments."""
        found, pixels = np.unique(ids, return_counts=True)
        pixels_of = dict(zip(found.tolist(), pixels.tolist(), strict=True))
        pixels_of.pop(VOID, None)
        names = segments.names.tolist()
        extra, absent = sorted(pixels_of.keys() - set(names)), sorted(set(names) - pixels_of.keys())
        path, image_id = self.ann_folder / self._map_names[index], self.ids[index]
        if extra:
            raise ValueError(
                f"panoptic map {path} has pixels of segment {preview([str(name) for name in extra])}, which image "
                f"{image_id} does not list in segments_info: correct the PNG or {self.ann_file}"
            )
        if absent:
            raise ValueError(
                f"panoptic map {path} has no pixel of segment {preview([str(name) for name in absent])}, which image "
                f"{image_id} lists in segments_info: correct the PNG or {self.ann_file}"
            )
        return np.array([pixels_of[name] for name in names], dtype=np.int64)


def check_maps(folder: Path, names: list[str]) -> None:
    """Raise FileNotFoundError if PNG files are missing in `folder`, with their number and the first names."""
    missing = find_missing(folder, names)
    if missing:
        named = preview([str(folder / names[index]) for index in missing])
        raise FileNotFoundError(
            f"{len(missing)} of {len(names)} panoptic maps {'is' if len(missing) == 1 else 'are'} missing ({named}); "
            f"{hint_at(folder, [names[index] for index in missing])}. Check the folder of the PNG files and the "
            "file_name entries under `annotations`"
        )


def build(image_set: str, args: Namespace) -> CocoPanoptic:
    """The "train" or "val" data set of the command line; FileNotFoundError or ValueError names the flag to correct."""
    img_folder, ann_file, ann_folder = locate(image_set, args, PARTS)
    transforms = build_transforms(image_set, args)
    instances = Path(args.coco_path or "", INSTANCES.format(image_set))
    known = args.coco_path and not getattr(args, f"{image_set}_ann", None) and instances.is_file()
    more = loading(args) | {"instances_file": instances if known else None}
    dataset = CocoPanoptic(img_folder, ann_folder, ann_file, transforms, args.masks, **more)
    check_not_empty(dataset, image_set, ann_file)
    if image_set == "val":
        dataset.check_pictures()
    return dataset


def _column(segments: list[dict[str, Any]], key: str) -> np.ndarray:
    return np.array([segment[key] for segment in segments], dtype=np.int64)
