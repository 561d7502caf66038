"""True and false positives at IoU 0.5: precision, recall and F1 over score thresholds, and the confusion matrix.

Legend: n detections, m objects, K categories, S score thresholds; boxes are x, y, width, height in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pycocotools.coco import COCO

from evaluation.coco_eval import MANY_CATEGORIES, CocoEvaluator
from evaluation.detections import Detections
from evaluation.matching import IGNORED, UNMATCHED, match

if TYPE_CHECKING:
    from scipy.sparse import csr_array

IOU = 0.5
THRESHOLDS = np.arange(101) / 100
FALLBACK_THRESHOLD = 0.5  # for the confusion matrix, if there is no true positive


class Objects(NamedTuple):
    """The ground truth of the evaluated images."""

    images: np.ndarray  # int64 [m], image ids
    classes: np.ndarray  # int64 [m], 0..K - 1
    boxes: np.ndarray  # float64 [m, 4]
    crowd: np.ndarray  # bool [m]


class ScoredMatches(NamedTuple):
    """Detections by descending score, each a true or a false positive. Ignored detections are left out."""

    scores: np.ndarray  # float64 [n]
    true_positive: np.ndarray  # bool [n]
    objects: int  # number of objects, crowd regions excluded


class Counts(NamedTuple):
    """Detections with score ≥ each threshold, the true positives among them, and the number of objects."""

    thresholds: np.ndarray  # float64 [S]
    detections: np.ndarray  # int64 [S]
    true_positives: np.ndarray  # int64 [S]
    objects: int

    @property
    def precision(self) -> np.ndarray:
        """Share of true positives among the detections; NaN without detections."""
        return _ratio(self.true_positives, self.detections)

    @property
    def recall(self) -> np.ndarray:
        """Share of objects that are found; NaN without objects."""
        return _ratio(self.true_positives, np.full_like(self.true_positives, self.objects))

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, 0 without true positives; NaN without objects."""
        return _ratio(2 * self.true_positives, (self.detections + self.objects) * (self.objects > 0))


class ThresholdSweep(NamedTuple):
    """Counts at all thresholds; `threshold`, `f1`, `precision` and `recall` at the best F1, if it is above 0."""

    counts: Counts
    best: dict[str, float] | None


class MatchSummary(NamedTuple):
    """What matching at IoU 0.5 shows about an evaluation.

    Of more than 500 categories, the K are those that occur in the ground truth or the detections.
    """

    ids: list[int]  # [K] category ids
    names: list[str]  # [K]
    objects: Objects
    detections: Detections
    overall: ThresholdSweep  # of the detections of all classes together
    classes: list[ThresholdSweep]  # [K]
    threshold: float  # of the best F1 overall, or FALLBACK_THRESHOLD
    matrix: np.ndarray | csr_array  # int64 [K + 1, K + 1], the confusion matrix at that threshold; sparse if K > 500
    absent: int  # number of categories that are left out because they do not occur
    labels: np.ndarray  # int64 [n], class of each detection, 0..K - 1
    matches: np.ndarray  # int64 [n], its object within its class; UNMATCHED or IGNORED, see `evaluation.matching`


def summarize_matches(evaluator: CocoEvaluator) -> MatchSummary:
    """Match the boxes of an evaluator, after its `accumulate`, to its ground truth and count.

    The number of detections per class and image is limited as in the evaluator's AP, by default to 100.
    """
    rows = evaluator.per_class()
    detections, known = evaluator.detections, len(rows)
    if known > MANY_CATEGORIES:
        annotations = evaluator.coco_gt.imgToAnns
        present = {a["category_id"] for image_id in evaluator.img_ids for a in annotations.get(image_id, ())}
        present.update(np.unique(detections.rows[:, 6]).astype(np.int64).tolist())
        rows = [row for row in rows if row["id"] in present]
    ids, names = [row["id"] for row in rows], [row["name"] for row in rows]
    objects = read_objects(evaluator.coco_gt, evaluator.img_ids, ids)
    limit = evaluator.coco_eval["bbox"].params.maxDets[-1]
    labels, matches = match_by_class(detections, objects, ids, max_detections=limit)
    by_class = _scored_matches(detections, labels, matches, objects, len(ids))
    overall, classes = _sweep(merge_classes(by_class)), [_sweep(matches) for matches in by_class]
    threshold = FALLBACK_THRESHOLD if overall.best is None else overall.best["threshold"]
    matrix = confusion_counts(detections, objects, ids, threshold)
    matrix = matrix if len(ids) > MANY_CATEGORIES else matrix.toarray()
    absent = known - len(ids)
    return MatchSummary(ids, names, objects, detections, overall, classes, threshold, matrix, absent, labels, matches)


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


def label_detections(
    detections: Detections,
    objects: Objects,
    category_ids: list[int],
    *,
    iou: float = IOU,
    max_detections: int | None = 100,
) -> list[ScoredMatches]:
    """The true and false positives of each category, as COCO counts them.

    Args:
        max_detections: how many detections of an image and category count, those with the highest scores.
    """
    labels, matches = match_by_class(detections, objects, category_ids, iou=iou, max_detections=max_detections)
    return _scored_matches(detections, labels, matches, objects, len(category_ids))


def match_by_class(
    detections: Detections,
    objects: Objects,
    category_ids: list[int],
    *,
    iou: float = IOU,
    max_detections: int | None = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """Match each detection to an object of its image and category, as COCO does.

    Returns:
        int64 [n] each: the index of the detection's category, -1 if that is unknown; the index of its object,
        UNMATCHED or IGNORED.
    """
    labels = _class_indices(detections, category_ids)
    known = labels >= 0
    image, label = detections.rows[known, 0].astype(np.int64), labels[known]
    image_ids = np.unique(np.concatenate([image, objects.images]))
    matches = np.full(len(labels), IGNORED)
    matches[known] = match(
        np.searchsorted(image_ids, image) * len(category_ids) + label,
        detections.rows[known, 1:5],
        detections.rows[known, 5],
        np.searchsorted(image_ids, objects.images) * len(category_ids) + objects.classes,
        objects.boxes,
        objects.crowd,
        iou=iou,
        max_detections=max_detections,
    )
    return labels, matches


def _scored_matches(
    detections: Detections, labels: np.ndarray, matches: np.ndarray, objects: Objects, classes: int
) -> list[ScoredMatches]:
    """What `match_by_class` found, of each category."""
    scores = detections.rows[:, 5]
    order = np.lexsort((-scores, labels))
    order = order[matches[order] != IGNORED]
    edges = np.searchsorted(labels[order], np.arange(classes + 1))
    totals = np.bincount(objects.classes[~objects.crowd], minlength=classes)
    parts = [order[start:end] for start, end in zip(edges, edges[1:])]
    return [ScoredMatches(scores[part], matches[part] >= 0, int(total)) for part, total in zip(parts, totals)]


def merge_classes(by_class: list[ScoredMatches]) -> ScoredMatches:
    """The detections and objects of all categories together."""
    scores = np.concatenate([np.zeros(0), *(matches.scores for matches in by_class)])
    true_positive = np.concatenate([np.zeros(0, dtype=bool), *(matches.true_positive for matches in by_class)])
    order = np.argsort(-scores, kind="stable")
    return ScoredMatches(scores[order], true_positive[order], sum(matches.objects for matches in by_class))


def count_at_thresholds(matches: ScoredMatches, thresholds: np.ndarray = THRESHOLDS) -> Counts:
    """The counts of the detections with score ≥ each threshold."""
    detections = np.searchsorted(-matches.scores, -thresholds, side="right")
    true_positives = np.concatenate([[0], np.cumsum(matches.true_positive)])
    return Counts(thresholds, detections, true_positives[detections], matches.objects)


def best_threshold(matches: ScoredMatches) -> float | None:
    """The score threshold of the highest F1, the highest one of several; None if there is no true positive.

    It is between two scores, rounded to as few digits as possible, so that `>` and `>=` keep the same detections.
    """
    if not matches.true_positive.any():
        return None
    counts = count_at_thresholds(matches, np.unique(matches.scores)[::-1])
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
    """How often each class is predicted as which class, among detections with score ≥ `threshold`.

    Matching is greedy by score and ignores classes: a detection takes the unmatched object of its image with the
    largest IoU. Crowd regions are left out, and so are detections in them that match nothing else.

    hotcoco's `COCOeval.confusion_matrix` is not equal: it counts detections in crowd regions as false positives, and
    between equal scores or overlaps it decides by category instead of by the given order.

    Returns:
        int64 [K + 1, K + 1]: rows are the truth, columns the prediction; the last row holds detections that match
        nothing, the last column objects that are missed.
    """
    return confusion_counts(detections, objects, category_ids, threshold, iou=iou).toarray()


def confusion_counts(
    detections: Detections, objects: Objects, category_ids: list[int], threshold: float, *, iou: float = IOU
) -> csr_array:
    """`confusion_matrix` as a sparse matrix, for any number of categories."""
    from scipy.sparse import coo_array

    label = _class_indices(detections, category_ids)
    kept = (label >= 0) & (detections.rows[:, 5] >= threshold)
    rows, label, background = detections.rows[kept], label[kept], len(category_ids)
    image = rows[:, 0].astype(np.int64)
    matches = match(image, rows[:, 1:5], rows[:, 5], objects.images, objects.boxes, objects.crowd, iou=iou)
    matched = matches >= 0
    missed = ~objects.crowd
    missed[matches[matched]] = False
    unmatched = label[matches == UNMATCHED]
    unfound = objects.classes[missed]
    truth = np.concatenate([objects.classes[matches[matched]], np.full(len(unmatched), background), unfound])
    predicted = np.concatenate([label[matched], unmatched, np.full(len(unfound), background)])
    counts = np.ones(len(truth), dtype=np.int64)
    return coo_array((counts, (truth, predicted)), shape=(background + 1, background + 1)).tocsr()  # adds the counts


def _sweep(matches: ScoredMatches) -> ThresholdSweep:
    counts, best = count_at_thresholds(matches), best_threshold(matches)
    if best is None:
        return ThresholdSweep(counts, None)
    at_best = count_at_thresholds(matches, np.array([best]))
    rates = {"f1": at_best.f1.item(), "precision": at_best.precision.item(), "recall": at_best.recall.item()}
    return ThresholdSweep(counts, {"threshold": best, **rates})


def _class_indices(detections: Detections, category_ids: list[int]) -> np.ndarray:
    """Index of each detection's category in `category_ids`, -1 for others: int64 [n]."""
    labels, inverse = np.unique(detections.rows[:, 6], return_inverse=True)
    index = {category_id: k for k, category_id in enumerate(category_ids)}
    return np.array([index.get(label, -1) for label in labels.tolist()], dtype=np.int64)[inverse]


def _ratio(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.divide(part, total, out=np.full(len(total), np.nan), where=total > 0)
