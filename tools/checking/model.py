"""What the model will see: sizes, queries and classes, from flags or from a checkpoint."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from datasets.transforms import get_size_with_aspect_ratio
from util.checkpoint import load_checkpoint
from util.coco_names import COCO_NUM_CLASSES, coco_categories
from util.loading.checkpoint_entries import count_classes, has_masks, model_of
from util.loading.saved_settings import infer_settings, read_settings
from util.settings import SETTINGS

FLAGS = ("train_sizes", "max_size", "val_size", "num_queries", "max_dets", "max_pixels")


@dataclass(frozen=True)
class ModelFacts:
    """What a data set is checked against.

    Attributes:
        train_size: the largest short side in training, pixels.
        val_size: the short side in evaluation.
        max_size: the limit of the long side.
        num_queries: the most objects found in one picture.
        max_dets: the most detections per picture and class that AP counts.
        max_pixels: of a picture file.
        source: the checkpoint; empty without one.
        num_classes: of the checkpoint; None without one.
        categories: of the checkpoint; empty if it names none.
        with_masks: it segments.
    """

    train_size: int
    val_size: int
    max_size: int
    num_queries: int
    max_dets: int
    max_pixels: int
    source: str = ""
    num_classes: int | None = None
    categories: list[dict[str, Any]] = field(default_factory=list)
    with_masks: bool = False

    def scales(self, sizes: np.ndarray) -> np.ndarray:
        """How much training enlarges pictures of these sizes [P, 2] at most, [P]; NaN where a size is unknown."""
        known: dict[tuple[float, float], float] = {}
        for width, height in {(w, h) for w, h in sizes.tolist() if w > 0 and h > 0}:
            new_height, new_width = get_size_with_aspect_ratio(
                (int(width), int(height)), self.train_size, self.max_size
            )
            known[width, height] = max(new_width / width, new_height / height)
        return np.array([known.get((w, h), np.nan) for w, h in sizes.tolist()], dtype=np.float64)


def add_flags(parser: argparse._ActionsContainer) -> None:
    """The flags of main.py that decide what the model sees. None: not given."""
    for name in FLAGS:
        replace(SETTINGS[name], default=[] if name == "train_sizes" else None).add_to(parser)


def model_facts(options: argparse.Namespace) -> ModelFacts:
    """What the command line and the checkpoint say; a flag wins.

    Raises:
        ValueError: a flag is out of bounds.
        CheckpointError: the checkpoint cannot be read, or is no detector.
    """
    given = {name: getattr(options, name) for name in FLAGS if getattr(options, name, None) not in (None, [])}
    for name, value in given.items():
        SETTINGS[name].check(value)
    found: dict[str, Any] = {}
    saved: dict[str, Any] = {}
    if options.checkpoint:
        found, saved = _of_checkpoint(options.checkpoint)
    values = {name: SETTINGS[name].default for name in FLAGS} | saved | given
    sizes = values.pop("train_sizes")
    return ModelFacts(train_size=max(sizes), **values, **found)


def _of_checkpoint(source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What only a checkpoint tells, and its values of `FLAGS`."""
    checkpoint = load_checkpoint(source)
    weights = model_of(checkpoint, source)
    num_classes = count_classes(weights, source)
    names = ("train_sizes", "max_size", "val_size", "num_queries")
    if checkpoint.get("args"):
        saved = read_settings(checkpoint, source, names)
    else:
        saved = {name: value for name, value in infer_settings(checkpoint, source).items() if name in names}
    categories = checkpoint.get("categories") or (coco_categories() if num_classes == COCO_NUM_CLASSES else [])
    found = {
        "source": source,
        "num_classes": num_classes,
        "categories": categories,
        "with_masks": has_masks(checkpoint["model"]),
    }
    return found, saved
