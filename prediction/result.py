"""The prediction for an image: objects, their masks, and the panoptic map."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch.nn.functional as F
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from prediction.panoptic_map import PanopticMap
from util.pictures.boxes import color_of, draw_boxes
from util.pictures.fonts import unknown_letters, visible
from util.pictures.masks import draw_masks, draw_panoptic, shades

MAX_LETTERS = 28  # of a class name on a picture, to leave room for the score


@dataclass(frozen=True)
class Prediction:
    """The objects found in one image, highest score first.

    Attributes:
        image: the input image, RGB and upright.
        boxes: float32 [n, 4], xyxy in pixels of `image`; not clipped, so they may extend slightly beyond it.
        scores: float32 [n].
        labels: int64 [n], category ids, those of the annotations the model was trained on.
        names: n class names.
        queries: int64 [n], the index of the object query of each detection.
        masks: bool [n, H, W], the pixels of each object; None if the model has no mask head.
        panoptic: the segments of the whole image, stuff included; None if the model is not panoptic.
        best_score: the highest score of all queries, also if it is below the threshold; 0 if unknown.
    """

    image: Image.Image
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    names: list[str]
    queries: Tensor
    masks: Tensor | None = None
    panoptic: PanopticMap | None = None
    best_score: float = 0.0

    def __len__(self) -> int:
        return len(self.names)

    def draw(self, min_side: int = 384) -> Image.Image:
        """A copy of the image with boxes, class names, scores and, if there are any, masks.

        See `util.pictures.boxes.draw_boxes` and `util.pictures.masks.draw_masks`. A box has the colour of its class;
        with masks, the shade varies between objects of the same class.
        """
        labels = self.labels.tolist()
        names = [_drawable(name) for name in self.names]
        texts = [f"{_cut(name)} {_before_number(name)}{score:.0%}" for name, score in zip(names, self.scores.tolist())]
        if self.masks is None:
            colors = [color_of(label) for label in labels]
            return draw_boxes(self.image, self.boxes, texts, colors, min_side=min_side)
        return draw_masks(self.image, self.masks, self.boxes, texts, shades(labels), min_side=min_side)

    def draw_panoptic(self, min_side: int = 384) -> Image.Image:
        """The panoptic map drawn over the image, with a legend below; see `util.pictures.masks.draw_panoptic`.

        Raises:
            ValueError: the prediction has no panoptic map.
        """
        if self.panoptic is None:
            raise ValueError("the prediction has no panoptic map: use a model trained on panoptic data")
        segments = [segment | {"name": _drawable(segment["name"])} for segment in self.panoptic.segments]
        return draw_panoptic(self.image, self.panoptic.ids, segments, min_side=min_side)

    def resized(self, image: Image.Image) -> Prediction:
        """The prediction scaled to another copy of the image, which may have another size."""
        across, down = image.width / self.image.width, image.height / self.image.height
        boxes = self.boxes * self.boxes.new_tensor([across, down, across, down])
        masks, size = self.masks, (image.height, image.width)
        if masks is not None and len(self):
            masks = F.interpolate(masks[:, None].byte(), size=size, mode="nearest")[:, 0].bool()
        elif masks is not None:
            masks = masks.new_zeros((0, *size))
        panoptic = self.panoptic and self.panoptic.resized(image.size)
        return replace(self, image=image, boxes=boxes, masks=masks, panoptic=panoptic)

    def crop(self, index: int) -> Image.Image:
        """The part of the image inside box `index`, rounded to whole pixels, at least one."""
        x0, y0, x1, y1 = self.boxes[index].tolist()
        width, height = self.image.size
        left, top = min(max(math.floor(x0), 0), width - 1), min(max(math.floor(y0), 0), height - 1)
        right, bottom = max(min(math.ceil(x1), width), left + 1), max(min(math.ceil(y1), height), top + 1)
        return self.image.crop((left, top, right, bottom))

    def results(self) -> list[dict[str, Any]]:
        """The detections as COCO results without image ids: category_id, bbox (x, y, width, height), area and score.

        With masks, also segmentation, a compressed run-length encoding; the area is then the mask's.
        """
        results = []
        for index, (x0, y0, x1, y1) in enumerate(self.boxes.tolist()):
            width, height = x1 - x0, y1 - y0
            result = {"category_id": int(self.labels[index]), "bbox": [x0, y0, width, height], "area": width * height}
            if self.masks is not None:
                encoded = coco_mask.encode(np.asfortranarray(self.masks[index].byte().numpy()))
                segmentation = {"size": encoded["size"], "counts": encoded["counts"].decode()}
                result |= {"segmentation": segmentation, "area": int(coco_mask.area(encoded))}
            results.append(result | {"score": float(self.scores[index])})
        return results


def class_name(label: int, names: Mapping[int, str]) -> str:
    """The name of a class, or `class ID` if it has none."""
    return names.get(label, f"class {label}")


def _drawable(name: str) -> str:
    """The name as it is drawn; that no font has some of its letters, which are drawn as escapes, is said once."""
    unknown_letters(name[:1000])
    return visible(name[:1000])


def _cut(name: str) -> str:
    return name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 1].rstrip()}…"


def _before_number(name: str) -> str:
    """A mark that keeps the per cent sign after the number when the name is written right to left."""
    return "\u200e" if any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in name) else ""
