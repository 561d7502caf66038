"""Why a detection is a false positive and why an object is missed: the kinds of errors of TIDE.

Bolya, Foley, Hays, Hoffman: "TIDE: A General Toolbox for Identifying Object Detection Errors", 2020, section 2.2, after
Hoiem et al. 2012. A detection that matches no object of its class at IoU 0.5 is the first of these that it fits:

    localisation    it overlaps an object of its class, but by less than 0.5 and at least 0.1
    classification  it overlaps an object of another class by at least 0.5
    duplicate       it overlaps an object of its class by at least 0.5, which another detection has found
    background      it overlaps no object by 0.1
    both            wrong class and place: the rest, an object of another class overlapped by 0.1 to 0.5

An object is missed if no detection finds it and no error of classification or localisation is about it. The order of
the kinds and the object that an error is about are those of the authors' code. Legend: n detections, m objects.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from evaluation.findings import IOU, MatchSummary
from evaluation.matching import IGNORED, UNMATCHED, overlapping_pairs

BACKGROUND_IOU = 0.1  # below, a detection has nothing to do with an object
KINDS = ("classification", "localisation", "both", "duplicate", "background")  # of detections
MISSED = "missed"  # the kind of objects
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(len(KINDS))
CORRECT, LEFT_OUT = -1, -2  # found an object; in a crowd region, beyond the limit or of an unknown class


class Errors(NamedTuple):
    """What each detection is."""

    kinds: np.ndarray  # int64 [n]: index in KINDS, CORRECT or LEFT_OUT
    objects: np.ndarray  # int64 [n]: the object that the detection finds or is about; -1 without one
    overlaps: np.ndarray  # float64 [n]: IoU with that object; 0 without one


def find_errors(summary: MatchSummary) -> Errors:
    """The kind of each detection of an evaluation."""
    rows, matches = summary.detections.rows, summary.matches
    kinds = np.full(len(rows), LEFT_OUT)
    kinds[matches >= 0] = CORRECT
    wrong = np.flatnonzero(matches == UNMATCHED)
    same, other = _nearest(summary, np.flatnonzero(matches != IGNORED))
    own, foreign = same.overlaps[wrong], other.overlaps[wrong]
    conditions = {
        LOCALISATION: (own >= BACKGROUND_IOU) & (own < IOU),
        CLASSIFICATION: foreign >= IOU,
        DUPLICATE: own >= IOU,
        BACKGROUND: np.maximum(own, foreign) < BACKGROUND_IOU,
    }
    kinds[wrong] = np.select(list(conditions.values()), list(conditions), BOTH)

    of_other = (kinds == CLASSIFICATION) | (kinds == BOTH)
    objects = np.where(of_other, other.objects, same.objects)
    overlaps = np.where(of_other, other.overlaps, same.overlaps)
    objects[kinds == CORRECT] = matches[kinds == CORRECT]
    nothing = (kinds == BACKGROUND) | (kinds == LEFT_OUT)
    objects[nothing], overlaps[nothing] = -1, 0
    return Errors(kinds, objects, overlaps)


def found_objects(errors: Errors, count: int, at: np.ndarray | None = None) -> np.ndarray:
    """Whether each of `count` objects is found: bool [m]. `at` [n]: the detections that count."""
    return _objects_of(errors, errors.kinds == CORRECT, count, at)


def missed_objects(errors: Errors, summary: MatchSummary, at: np.ndarray | None = None) -> np.ndarray:
    """Whether each object is missed: bool [m]. Crowd regions are not. `at` [n]: the detections that count."""
    count = len(summary.objects.crowd)
    about = (errors.kinds == CLASSIFICATION) | (errors.kinds == LOCALISATION)
    seen = found_objects(errors, count, at) | _objects_of(errors, about, count, at)
    return ~seen & ~summary.objects.crowd


def _objects_of(errors: Errors, which: np.ndarray, count: int, at: np.ndarray | None) -> np.ndarray:
    marked = np.zeros(count, dtype=bool)
    marked[errors.objects[which if at is None else which & at]] = True
    return marked


class _Nearest(NamedTuple):
    objects: np.ndarray  # int64 [n], -1 without one
    overlaps: np.ndarray  # float64 [n]


def _nearest(summary: MatchSummary, chosen: np.ndarray) -> tuple[_Nearest, _Nearest]:
    """The object of its own class and of another class that each of the `chosen` detections overlaps most.

    Crowd regions are left out, and overlaps below `BACKGROUND_IOU`.
    """
    rows, objects = summary.detections.rows, summary.objects
    chosen = chosen[np.argsort(rows[chosen, 0], kind="stable")]
    whole = np.flatnonzero(~objects.crowd)
    whole = whole[np.argsort(objects.images[whole], kind="stable")]
    found = [_Nearest(np.full(len(rows), -1), np.zeros(len(rows))) for _ in range(2)]
    pairs = overlapping_pairs(
        rows[chosen, 0].astype(np.int64),
        rows[chosen, 1:5],
        objects.images[whole],
        objects.boxes[whole],
        objects.crowd[whole],
        BACKGROUND_IOU,
    )
    for d, g, overlap in pairs:  # all pairs of a detection are in one chunk, next to each other
        detection, target = chosen[d], whole[g]
        of_own_class = summary.labels[detection] == objects.classes[target]
        for nearest, part in zip(found, (of_own_class, ~of_own_class)):
            largest = _first_largest(detection[part], overlap[part])
            nearest.objects[detection[part][largest]] = target[part][largest]
            nearest.overlaps[detection[part][largest]] = overlap[part][largest]
    return found[0], found[1]


def _first_largest(runs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The place of the first largest value in each run of equal `runs`."""
    starts = np.flatnonzero(np.diff(runs, prepend=-1))
    if not len(starts):
        return starts
    largest = np.maximum.reduceat(values, starts)
    places = np.flatnonzero(values == np.repeat(largest, np.diff(starts, append=len(runs))))
    return places[np.diff(runs[places], prepend=-1) != 0]
