"""What can be seen of a run that does not learn: in its data, its detections and its weights.

Legend: n objects of the pictures looked at; boxes in pixels of the image file unless said otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.annotations.boxes import far_beyond
from training.diagnosis.few_pictures import FewPictures

CLOSE = 0.02  # of the image's side: boxes no further apart count as the same
FOUND = 0.5  # IoU from which a detection has found an object
SPREAD = 4.0  # standard errors that the spread of random weights may differ from that of the initialisation
BACKGROUND_NAMES = frozenset(("background", "bg", "noobject"))


@dataclass
class DataFacts:
    """The objects of some pictures as the model gets them, beside their annotations.

    Attributes:
        objects: int64 [pictures], objects of each picture.
        labels: int64 [n], class ids of the targets.
        sides: float64 [n, 2], width and height in pixels at the model's input.
        stored: float64 [n, 2], the same in the image file.
        offsets: label of the target minus category of its annotation → number of objects.
        forms: how the target's box reads its annotation ("sizes", "corners", "raw" or "other") → number of objects.
        far: annotated boxes that reach far beyond their image.
        fitting: those of them that would fit into it as corners.
        corner_like: annotated boxes that could be corners at all.
        annotations: number of annotated boxes.
        background: sentence about objects of a class that is called background; empty if there are none.
    """

    objects: np.ndarray
    labels: np.ndarray
    sides: np.ndarray
    stored: np.ndarray
    offsets: Counter[int] = field(default_factory=Counter)
    forms: Counter[str] = field(default_factory=Counter)
    far: int = 0
    fitting: int = 0
    corner_like: int = 0
    annotations: int = 0
    background: str = ""


def look_at_data(few: FewPictures) -> DataFacts:
    """The facts of these pictures, which are read for it."""
    labels, sides, stored, objects = [], [], [], []
    facts = DataFacts(*map(np.array, (objects, labels, sides, stored)))
    for index, image_id in enumerate(few.ids):
        _, target = few[index]
        height, width = target["size"].tolist()
        original_height, original_width = target["orig_size"].tolist()
        boxes = target["boxes"].double().numpy()  # [n, 4] cxcywh, fractions
        objects.append(len(boxes))
        labels.append(target["labels"].numpy())
        sides.append(boxes[:, 2:] * (width, height))
        stored.append(boxes[:, 2:] * (original_width, original_height))
        annotations = few.annotations.get(image_id, [])
        _read_annotations(facts, annotations, (original_width, original_height))
        _compare(facts, target, annotations, (original_width, original_height))
    facts.objects, facts.labels = np.array(objects), np.concatenate(labels)
    facts.sides, facts.stored = np.concatenate(sides), np.concatenate(stored)
    facts.background = background_objects(few.categories, few.dataset.annotation_rows())
    return facts


def _read_annotations(facts: DataFacts, annotations: Iterable[Mapping[str, Any]], size: tuple[int, int]) -> None:
    boxes = np.array([a["bbox"] for a in annotations if not a.get("iscrowd")], dtype=np.float64).reshape(-1, 4)
    limits = np.array(size, dtype=np.float64)
    far = (boxes[:, :2] + boxes[:, 2:] > far_beyond(limits)).any(axis=1)
    corners = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (boxes[:, 2:] <= limits + 1).all(axis=1)
    facts.annotations += len(boxes)
    facts.far += int(far.sum())
    facts.fitting += int((far & corners).sum())
    facts.corner_like += int(corners.sum())


def _compare(
    facts: DataFacts, target: Mapping[str, Tensor], annotations: Sequence[Mapping[str, Any]], size: tuple[int, int]
) -> None:
    """Compare a target with the annotations that the evaluation uses."""
    by_id = {annotation["id"]: annotation for annotation in annotations}
    if len(by_id) < len(annotations):
        return  # repeated ids do not tell which is meant
    limits = np.array(size * 2, dtype=np.float64)
    for number, label, box in zip(
        target["annotation_id"].tolist(), target["labels"].tolist(), target["boxes"].double().numpy()
    ):
        if number not in by_id:
            continue
        facts.offsets[label - by_id[number]["category_id"]] += 1
        x, y, w, h = by_id[number]["bbox"]
        x0, y0, x1, y1 = np.clip([x, y, x + w, y + h], 0, limits) / limits
        readings = {
            "sizes": ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0),
            "corners": (x0, y0, x1, y1),
            "raw": np.array([x, y, w, h]) / limits,
        }
        matching = (form for form, reading in readings.items() if np.abs(box - reading).max() <= CLOSE)
        facts.forms[next(matching, "other")] += 1


def background_objects(categories: Iterable[Mapping[str, Any]], rows: np.ndarray) -> str:
    """A clause about objects of a class whose name says that it is none; empty if there are none.

    Args:
        rows: of all annotations; the third number is the category id.
    """
    for category in categories:
        name = str(category["name"])
        count = int((rows[:, 2] == category["id"]).sum()) if len(rows) else 0
        if count and "".join(filter(str.isalnum, name.casefold())) in BACKGROUND_NAMES:
            return f"{count} object{'s' * (count > 1)} belong{'s' * (count == 1)} to class {category['id']}, {name!r}"
    return ""


@dataclass
class Found:
    """The objects that detections have found, whatever their class.

    Attributes:
        truth, predicted: int64 [m], class ids.
        objects: number of objects looked for.
        as_corners: objects found if the four annotated numbers are read as corners.
    """

    truth: np.ndarray
    predicted: np.ndarray
    objects: int
    as_corners: int


def look_at_detections(rows: np.ndarray, annotations: Sequence[Mapping[str, Any]], min_score: float = 0.0) -> Found:
    """Which class the most confident detection gives to each object that it overlaps by at least half (IoU).

    Args:
        rows: float64 [d, 7], see `evaluation.detections.Detections`.
        annotations: objects of the same images; crowds are left out.
        min_score: detections below do not count.
    """
    rows = rows[rows[:, 5] >= min_score]
    objects = [annotation for annotation in annotations if not annotation.get("iscrowd")]
    truth, predicted, as_corners = [], [], 0
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    for annotation in objects:
        detections = rows[slice(*np.searchsorted(rows[:, 0], (annotation["image_id"], annotation["image_id"] + 1)))]
        x, y, w, h = annotation["bbox"]
        near = detections[_overlaps(detections[:, 1:5], (x, y, w, h)) >= FOUND]
        as_corners += bool((_overlaps(detections[:, 1:5], (x, y, w - x, h - y)) >= FOUND).any())
        if len(near):
            truth.append(annotation["category_id"])
            predicted.append(int(near[near[:, 5].argmax(), 6]))
    return Found(np.array(truth, dtype=np.int64), np.array(predicted, dtype=np.int64), len(objects), as_corners)


def _overlaps(boxes: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """IoU of boxes [d, 4] with one, all x, y, width, height; 0 for a box without area."""
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return np.zeros(len(boxes))
    wide = np.minimum(boxes[:, 0] + boxes[:, 2], x + w) - np.maximum(boxes[:, 0], x)
    high = np.minimum(boxes[:, 1] + boxes[:, 3], y + h) - np.maximum(boxes[:, 1], y)
    inside = np.maximum(wide, 0) * np.maximum(high, 0)
    return inside / (boxes[:, 2] * boxes[:, 3] + w * h - inside).clip(min=1e-12)


def random_frozen_parts(model: nn.Module) -> list[str]:
    """Parts of the backbone ("stem", "layer1" …) that do not train and whose weights are as initialised: random.

    Random weights are told by their spread, which is that of the initialisation (`models.resnet`) within its standard
    error. Trained weights are hardly ever that close.
    """
    body = getattr(getattr(model, "detr", model).backbone[0], "body", {})
    parts: dict[str, list[nn.Module]] = {}
    for name, module in body.items():
        parts.setdefault(name if name.startswith("layer") else "stem", []).append(module)
    found = []
    for name, modules in parts.items():
        layers = [layer for module in modules for layer in module.modules()]
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        trains = any(parameter.requires_grad for module in modules for parameter in module.parameters())
        if convolutions and not trains and all(map(_looks_random, convolutions)):
            found.append(name)
    return found


def _looks_random(layer: nn.Conv2d) -> bool:
    weight = layer.weight.detach().double()
    expected = math.sqrt(2 / (weight.shape[0] * weight[0, 0].numel()))  # He initialisation by fan-out
    return abs(weight.std().item() / expected - 1) <= SPREAD / math.sqrt(2 * weight.numel())


def relative_changes(model: nn.Module, before: Mapping[str, Tensor]) -> dict[str, float]:
    """How far the weights that train have moved, in shares of their size: "backbone" and "transformer" → share.

    Args:
        before: the earlier `state_dict`.
    """
    sums: dict[str, list[float]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = sums.setdefault("backbone" if "backbone" in name else "transformer", [0.0, 0.0])
            old = before[name].to(parameter.device)
            own[0] += (parameter.detach() - old).double().square().sum().item()
            own[1] += old.double().square().sum().item()
    return {part: math.sqrt(moved / max(size, 1e-30)) for part, (moved, size) in sums.items()}


def copy_of_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers as they are now."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def mean_of_last(losses: Sequence[float], count: int) -> float:
    """The mean of the last `count` losses; infinite if one of them is not finite, or if there are none."""
    last = torch.tensor(list(losses)[-count:], dtype=torch.float64)
    return last.mean().item() if len(last) and last.isfinite().all() else math.inf
