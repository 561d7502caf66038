"""What each kind of error costs: by how much AP at IoU 0.5 rises when the errors of one kind are corrected.

TIDE, section 2.3. Each kind is corrected alone, so the costs do not add up to 1 − AP:

    classification  the detection gets the class of its object and counts as correct
    localisation    it gets the box of its object and counts as correct
    both, duplicate, background    it is removed
    missed          the object is removed

Where several detections would become correct for one object, that with the highest score does and the others are
removed; errors of classification and localisation compete for it, as in the authors' code. Those about an object that
is found already are removed. Legend: n detections, m objects, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from evaluation.errors.kinds import (
    BACKGROUND,
    BOTH,
    CLASSIFICATION,
    CORRECT,
    DUPLICATE,
    KINDS,
    LEFT_OUT,
    LOCALISATION,
    MISSED,
    Errors,
    found_objects,
    missed_objects,
)
from evaluation.findings import MatchSummary

RECALLS = np.linspace(0, 1, 101)


class Costs(NamedTuple):
    """AP at IoU 0.5 as it is, and with one kind of errors corrected. NaN: a class without objects."""

    ap: np.ndarray  # float64 [K]
    corrected: dict[str, np.ndarray]  # kind → float64 [K]

    def mean(self) -> float | None:
        """AP50; None without objects."""
        return _mean(self.ap)

    def cost(self, kind: str) -> float | None:
        """How much AP50 rises; None if no class has objects left to measure it with."""
        before, after = _mean(self.ap), _mean(self.corrected[kind])
        return None if before is None or after is None else max(after - before, 0.0)

    def cost_of_class(self, kind: str, k: int) -> float | None:
        """The same of one class; None if it has no objects."""
        rise = float(self.corrected[kind][k] - self.ap[k])
        return None if np.isnan(rise) else max(rise, 0.0)


def costs_of(summary: MatchSummary, errors: Errors) -> Costs:
    """What the kinds of errors cost, over the detections of all scores."""
    classes, objects = len(summary.ids), summary.objects
    scores, labels, kinds = summary.detections.rows[:, 5], summary.labels, errors.kinds
    totals = np.bincount(objects.classes[~objects.crowd], minlength=classes)
    counts, correct = kinds != LEFT_OUT, kinds == CORRECT
    best = _best_of_each_object(errors, scores, len(objects.crowd))
    order = np.lexsort((-scores, labels))
    corrected = {}
    for kind in (CLASSIFICATION, LOCALISATION):
        fixed = best & (kinds == kind)
        kept = counts & ((kinds != kind) | fixed)
        new_labels = labels
        if kind == CLASSIFICATION and fixed.any():
            new_labels = np.where(fixed, objects.classes[errors.objects], labels)
        by_class = order[kept[order]] if new_labels is labels else _sorted(kept, new_labels, scores)
        corrected[KINDS[kind]] = average_precisions(new_labels[by_class], (correct | fixed)[by_class], totals)
    for kind in (BOTH, DUPLICATE, BACKGROUND):
        by_class = order[(counts & (kinds != kind))[order]]
        corrected[KINDS[kind]] = average_precisions(labels[by_class], correct[by_class], totals)
    order = order[counts[order]]
    labels, correct = labels[order], correct[order]
    lost = np.bincount(objects.classes[missed_objects(errors, summary)], minlength=classes)
    corrected[MISSED] = average_precisions(labels, correct, totals - lost)
    return Costs(average_precisions(labels, correct, totals), corrected)


def average_precisions(labels: np.ndarray, correct: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """AP of each class as COCO computes it: the mean precision at 101 recalls.

    Args:
        labels, correct: of the detections [n], sorted by class and falling score.
        totals: objects of each class, [K].

    Returns:
        float64 [K]; NaN for a class without objects.
    """
    edges = np.searchsorted(labels, np.arange(len(totals) + 1))
    ap = np.full(len(totals), np.nan)
    for k in np.flatnonzero(totals > 0):
        right = np.cumsum(correct[edges[k] : edges[k + 1]])
        precision = right / (np.arange(1, len(right) + 1) + np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(right / totals[k], RECALLS, side="left")
        ap[k] = np.append(precision, 0)[at].mean()
    return ap


def _sorted(kept: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    chosen = np.flatnonzero(kept)
    return chosen[np.lexsort((-scores[chosen], labels[chosen]))]


def _best_of_each_object(errors: Errors, scores: np.ndarray, count: int) -> np.ndarray:
    """Which errors of classification and localisation would be the detection of their object: bool [n]."""
    kinds = errors.kinds
    about = np.flatnonzero((kinds == CLASSIFICATION) | (kinds == LOCALISATION))
    about = about[~found_objects(errors, count)[errors.objects[about]]]
    about = about[np.argsort(-scores[about], kind="stable")]
    _, first = np.unique(errors.objects[about], return_index=True)
    best = np.zeros(len(kinds), dtype=bool)
    best[about[first]] = True
    return best


def _mean(ap: np.ndarray) -> float | None:
    measured = ap[~np.isnan(ap)]
    return float(measured.mean()) if len(measured) else None
