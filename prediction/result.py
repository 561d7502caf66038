"""The prediction for an image: objects, their masks, and the panoptic map."""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Mapping, Sequence
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

MIN_SIDE = 384  # pixels; smaller pictures are drawn larger
SHOWN_SIDE = 1280  # pixels of a picture in a notebook
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

    def draw(self, min_side: int = MIN_SIDE) -> Image.Image:
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

    def draw_panoptic(self, min_side: int = MIN_SIDE) -> Image.Image:
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

    def to_dicts(self) -> list[dict[str, Any]]:
        """The detections as plain data: label (category id), name, score, box (xyxy in pixels), query.

        With masks, also segmentation, a compressed run-length encoding as COCO has it.
        """
        dicts = []
        for index, result in enumerate(self.results()):
            plain = {"label": result["category_id"], "name": self.names[index], "score": result["score"]}
            plain |= {"box": self.boxes[index].tolist(), "query": int(self.queries[index])}
            masks = {"segmentation": result["segmentation"]} if "segmentation" in result else {}
            dicts.append(plain | masks)
        return dicts

    def to_coco(self, file_name: str = "", image_id: int = 1) -> dict[str, Any]:
        """The detections as COCO JSON of this one image, see `to_coco`."""
        return to_coco({file_name: self}, first_id=image_id)

    def to_supervision(self, track_ids: Sequence[int | None] | None = None) -> Any:
        """The detections as `supervision.Detections`, with the names in `data["class_name"]`.

        Args:
            track_ids: of `prediction.tracking.tracker.Tracker.update`; an object without one gets -1.

        Raises:
            ImportError: the package is not installed.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise ImportError(f"{error}, which to_supervision() needs: pip install supervision") from error
        return Detections(
            xyxy=self.boxes.numpy().reshape(-1, 4),
            mask=None if self.masks is None else self.masks.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy().astype(int),
            tracker_id=None if track_ids is None else np.array([-1 if one is None else one for one in track_ids], int),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the picture with its objects, or with its panoptic map, at most 1280 pixels a side."""
        width, height = self.image.size
        largest = SHOWN_SIDE / max(width, height)  # the scale at which it fills the room
        size = tuple(max(1, round(side * min(1.0, largest))) for side in (width, height))
        shown = self if size == self.image.size else self.resized(self.image.resize(size, Image.Resampling.LANCZOS))
        min_side = max(1, min(MIN_SIDE, int(min(width, height) * largest)))  # small pictures are drawn larger
        draw = shown.draw if self.panoptic is None else shown.draw_panoptic
        picture, file = draw(min_side), io.BytesIO()
        picture.save(file, "PNG")
        return file.getvalue()


def to_coco(
    predictions: Mapping[str, Prediction], categories: Sequence[Mapping[str, Any]] = (), first_id: int = 1
) -> dict[str, Any]:
    """Predictions as COCO JSON: images, annotations (COCO results with an id and "iscrowd" 0) and categories.

    `json.dumps` takes it, and pycocotools' `COCO` loads what that writes.

    Args:
        predictions: file name → prediction of the image.
        categories: of the predictor; the classes that were found are added where they are missing.
        first_id: the id of the first image.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    kinds = {category["id"]: dict(category) for category in categories}
    for number, (name, prediction) in enumerate(predictions.items(), start=first_id):
        images.append({"id": number, "file_name": name} | dict(zip(("width", "height"), prediction.image.size)))
        for result, class_of_it in zip(prediction.results(), prediction.names):
            annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0} | result)
            kinds.setdefault(result["category_id"], {"id": result["category_id"], "name": class_of_it})
    return {"images": images, "annotations": annotations, "categories": [kinds[number] for number in sorted(kinds)]}


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
