"""The repeat factors of a data set's images, see `datasets.augment.repeats`."""

from __future__ import annotations

import numpy as np

from datasets.annotated_images import AnnotatedImages
from datasets.augment.repeats import Repeats
from util.logging import get_logger
from util.text import printable

NAMED = 5  # classes that a message names


def find_repeats(dataset: AnnotatedImages, threshold: float, seed: int) -> Repeats | None:
    """How often an epoch of training holds each image, which is logged; None for a threshold of 0.

    Args:
        threshold: see `repeat_factors`.
        seed: see `Repeats`.
    """
    if not threshold:
        return None
    repeats = Repeats(repeat_factors(dataset, threshold), seed)
    get_logger().info(describe_repeats(dataset, threshold, repeats))
    return repeats


def repeat_factors(dataset: AnnotatedImages, threshold: float) -> np.ndarray:
    """The repeat factor of each image of a data set, float64 [images]; 1 for those without objects.

    Args:
        threshold: classes that a smaller share of the images show are repeated.
    """
    images, labels = dataset.object_labels()
    shown = np.unique(np.stack([images, labels], axis=1), axis=0)  # [pairs, 2]: each class once for an image
    classes, place, counts = np.unique(shown[:, 1], return_inverse=True, return_counts=True)
    of_class = np.maximum(1, np.sqrt(threshold * len(dataset) / counts)) if len(classes) else np.ones(0)
    factors = np.ones(len(dataset))
    np.maximum.at(factors, shown[:, 0], of_class[place])
    return factors


def describe_repeats(dataset: AnnotatedImages, threshold: float, repeats: Repeats) -> str:
    """What is repeated, in one line."""
    images, labels = dataset.object_labels()
    shown = np.unique(np.stack([images, labels], axis=1), axis=0)[:, 1]
    names = {category["id"]: category["name"] for category in dataset.categories}
    counts = {label: int((shown == label).sum()) for label in np.unique(shown).tolist()}
    rare = sorted((count, label) for label, count in counts.items() if count < threshold * len(dataset))
    if not rare:
        return f"--repeat_threshold {threshold:g} repeats nothing: every class is in that share of the images or more"
    named = [
        f"{printable(names.get(label, label), 40)} {np.sqrt(threshold * len(dataset) / count):.3g}"
        for count, label in rare[:NAMED]
    ]
    more = f" and {len(rare) - NAMED:,} more classes" if len(rare) > NAMED else ""
    return (
        f"--repeat_threshold {threshold:g}: an epoch holds {len(repeats):,} images, {len(dataset):,} of them "
        f"different; repeat factors: {', '.join(named)}{more}"
    )
