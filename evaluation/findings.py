"""What an evaluation finds at IoU 0.5: right and wrong detections, F1 over score thresholds, the confusion matrix.

Legend: n detections, m objects, K categories, S score thresholds; boxes are x, y, width, height in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO

from evaluation.coco_eval import CocoEvaluator
from evaluation.detections import Detections
from evaluation.matching import IGNORED, UNMATCHED, match

IOU = 0.5
THRESHOLDS = np.arange(101) / 100
THRESHOLD_WITHOUT_BEST = 0.5  # for the confusion matrix, where no detection is right


class Objects(NamedTuple):
    """The ground truth of the evaluated images."""

    images: np.ndarray  # int64 [m], image ids
    classes: np.ndarray  # int64 [m], 0..K - 1
    boxes: np.ndarray  # float64 [m, 4]
    crowd: np.ndarray  # bool [m]


class Judged(NamedTuple):
    """Detections by falling score, and whether each is right; those that count neither way are left out."""

    scores: np.ndarray  # float64 [n]
    right: np.ndarray  # bool [n]
    objects: int  # that there are to find


class Counts(NamedTuple):
    """What is found at score thresholds: detections at or above each, those of them that are right, all objects."""

    thresholds: np.ndarray  # float64 [S]
    kept: np.ndarray  # int64 [S]
    right: np.ndarray  # int64 [S]
    objects: int

    @property
    def precision(self) -> np.ndarray:
        """Right ones among those kept; NaN where none is kept."""
        return _ratio(self.right, self.kept)

    @property
    def recall(self) -> np.ndarray:
        """Objects found; NaN if there are none to find."""
        return _ratio(self.right, np.full_like(self.right, self.objects))

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, 0 where nothing is found; NaN if there is nothing to find."""
        return _ratio(2 * self.right, (self.kept + self.objects) * (self.objects > 0))


class Outcome(NamedTuple):
    """Counts over all thresholds, and `threshold`, `f1`, `precision` and `recall` at the best, if anything is right."""

    counts: Counts
    best: dict[str, float] | None


class Findings(NamedTuple):
    """What the matching at IoU 0.5 says of an evaluation."""

    ids: list[int]  # [K] category ids
    names: list[str]  # [K]
    objects: Objects
    detections: Detections
    overall: Outcome  # of all classes' detections together
    classes: list[Outcome]  # [K]
    threshold: float  # the best one overall, or a stand-in
    matrix: np.ndarray  # int64 [K + 1, K + 1], at that threshold


def find(evaluator: CocoEvaluator) -> Findings:
    """Match the boxes of an evaluator, after its `accumulate`, to its ground truth and count.

    The detections of a class and image are limited to as many as in the evaluator's AP, 100 by default.
    """
    rows = evaluator.per_class()
    ids, names = [row["id"] for row in rows], [row["name"] for row in rows]
    detections, objects = evaluator.detections, read_objects(evaluator.coco_gt, evaluator.img_ids, ids)
    judged = judge(detections, objects, ids, most=evaluator.coco_eval["bbox"].params.maxDets[-1])
    overall, classes = _outcome(pooled(judged)), [_outcome(one) for one in judged]
    threshold = THRESHOLD_WITHOUT_BEST if overall.best is None else overall.best["threshold"]
    matrix = confusion_matrix(detections, objects, ids, threshold)
    return Findings(ids, names, objects, detections, overall, classes, threshold, matrix)


def read_objects(coco: COCO, image_ids: list[int], category_ids: list[int]) -> Objects:
    """The annotations of these images and categories, in the order of the images."""
    index = {category_id: k for k, category_id in enumerate(category_ids)}
    chosen = [a for i in image_ids for a in coco.imgToAnns.get(i, ()) if a["category_id"] in index]
    return Objects(
        np.array([annotation["image_id"] for annotation in chosen], dtype=np.int64),
        np.array([index[annotation["category_id"]] for annotation in chosen], dtype=np.int64),
        np.array([annotation["bbox"] for annotation in chosen], dtype=np.float64).reshape(-1, 4),
        np.array([bool(annotation["iscrowd"]) for annotation in chosen], dtype=bool),
    )


def judge(
    detections: Detections, objects: Objects, category_ids: list[int], *, iou: float = IOU, most: int | None = 100
) -> list[Judged]:
    """Right and wrong detections of each category, as COCO counts them: the `most` best of an image and category."""
    image, label = detections.rows[:, 0].astype(np.int64), _classes_of(detections, category_ids)
    known = label >= 0
    image, label, boxes, scores = image[known], label[known], detections.rows[known, 1:5], detections.rows[known, 5]
    numbers = np.unique(np.concatenate([image, objects.images]))
    groups = np.searchsorted(numbers, image) * len(category_ids) + label
    object_groups = np.searchsorted(numbers, objects.images) * len(category_ids) + objects.classes
    taken = match(groups, boxes, scores, object_groups, objects.boxes, objects.crowd, iou=iou, most=most)

    order = np.lexsort((-scores, label))
    order = order[taken[order] != IGNORED]
    edges = np.searchsorted(label[order], np.arange(len(category_ids) + 1))
    totals = np.bincount(objects.classes[~objects.crowd], minlength=len(category_ids))
    parts = [order[start:end] for start, end in zip(edges, edges[1:])]
    return [Judged(scores[part], taken[part] >= 0, int(total)) for part, total in zip(parts, totals)]


def pooled(judged: list[Judged]) -> Judged:
    """All categories as one."""
    scores = np.concatenate([np.zeros(0), *(one.scores for one in judged)])
    right = np.concatenate([np.zeros(0, dtype=bool), *(one.right for one in judged)])
    order = np.argsort(-scores, kind="stable")
    return Judged(scores[order], right[order], sum(one.objects for one in judged))


def count(judged: Judged, thresholds: np.ndarray = THRESHOLDS) -> Counts:
    """The counts of detections with score ≥ each threshold."""
    kept = np.searchsorted(-judged.scores, -thresholds, side="right")
    right = np.concatenate([[0], np.cumsum(judged.right)])
    return Counts(thresholds, kept, right[kept], judged.objects)


def best_threshold(judged: Judged) -> float | None:
    """The score threshold of the highest F1, among equals the highest one; None if no detection is right.

    It lies between two scores, with no more digits than it takes, so that `>` and `>=` keep the same detections.
    """
    if not judged.right.any():
        return None
    counts = count(judged, np.unique(judged.scores)[::-1])
    best = int(np.argmax(counts.f1))
    above = float(counts.thresholds[best])
    lowest = 0.0 if above > 0 else above - 1
    below = float(counts.thresholds[best + 1]) if best + 1 < len(counts.thresholds) else lowest
    for digits in range(2, 17):
        threshold = round((below + above) / 2, digits)
        if below < threshold < above:
            return threshold
    return above


def confusion_matrix(
    detections: Detections, objects: Objects, category_ids: list[int], threshold: float, *, iou: float = IOU
) -> np.ndarray:
    """How often which class is taken for which, among detections with score ≥ `threshold`.

    Matching is greedy by score and blind to classes: a detection takes the free object of its image that it overlaps
    most. Crowd regions are left out, and so are detections in them that match nothing else.

    Returns:
        int64 [K + 1, K + 1]: rows are the truth, columns the prediction; the last row holds detections that match
        nothing, the last column objects that are not found.
    """
    label = _classes_of(detections, category_ids)
    kept = (label >= 0) & (detections.rows[:, 5] >= threshold)
    rows, label, background = detections.rows[kept], label[kept], len(category_ids)
    image = rows[:, 0].astype(np.int64)
    taken = match(image, rows[:, 1:5], rows[:, 5], objects.images, objects.boxes, objects.crowd, iou=iou)
    hit = taken >= 0
    missed = ~objects.crowd
    missed[taken[hit]] = False
    matrix = np.zeros((background + 1, background + 1), dtype=np.int64)
    np.add.at(matrix, (objects.classes[taken[hit]], label[hit]), 1)
    np.add.at(matrix, (background, label[taken == UNMATCHED]), 1)
    np.add.at(matrix, (objects.classes[missed], background), 1)
    return matrix


def _outcome(judged: Judged) -> Outcome:
    best = best_threshold(judged)
    if best is None:
        return Outcome(count(judged), None)
    there = count(judged, np.array([best]))
    values = {"f1": there.f1.item(), "precision": there.precision.item(), "recall": there.recall.item()}
    return Outcome(count(judged), {"threshold": best, **values})


def _classes_of(detections: Detections, category_ids: list[int]) -> np.ndarray:
    """Index of each detection's category in `category_ids`, -1 for others: int64 [n]."""
    labels, inverse = np.unique(detections.rows[:, 6], return_inverse=True)
    index = {category_id: k for k, category_id in enumerate(category_ids)}
    return np.array([index.get(label, -1) for label in labels.tolist()], dtype=np.int64)[inverse]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
