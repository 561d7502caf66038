"""Findings about amounts: objects per picture beside the queries, parts that are missing, empty or small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from datasets.formats.part import FoundData
from tools.checking.entries import PartData
from tools.checking.findings import Finding, Level, Place, counted, finding, has
from tools.checking.model import ModelFacts


def amount_findings(parts: Sequence[PartData], facts: ModelFacts, data: FoundData) -> Iterator[Finding]:
    """Everything about amounts; `data` has the parts that could not be read, too."""
    names, root = [*data.parts, *data.unusable], data.root
    most = max((int(objects_per_picture(part).max(initial=0)) for part in parts), default=0)
    for part in parts:
        yield from _nothing(part)
        yield from _more_than_queries(part, facts, most)
        yield from _more_than_counted(part, facts)
    if "train" not in names and parts:
        yield finding(
            "no-train-part",
            Level.NOTE,
            f"there is no training part, only {' and '.join(names)}",
            "The folder can be evaluated, and not trained on.",
            [Place(names[0], str(root))],
            weight=0.5,
        )
    elif "val" not in names and parts:
        yield finding(
            "no-val-part",
            Level.HURTS,
            "there is no validation part, so nothing tells whether the model learns",
            "Pass --val_share 0.15 to main.py, which splits off a share of the training pictures.",
            [Place(names[0], str(root))],
            weight=0.4,
        )


def objects_per_picture(part: PartData) -> np.ndarray:
    """The number of objects of each picture without crowd regions, int64 [P]."""
    return np.bincount(part.owners[~part.crowd], minlength=len(part.images))


def _nothing(part: PartData) -> Iterator[Finding]:
    objects = int((~part.crowd).sum())
    if part.images and objects:
        return
    what = "no usable picture" if not part.images else "no object"
    yield finding(
        "part-empty",
        Level.STOPS,
        f"{part.name} has {what} to learn or to evaluate",
        "Check that this is the annotation file that was meant, and that the export included the annotations.",
        [Place(part.name, part.source)],
        weight=1.4,  # behind the faulty entries that may be its cause
    )


def _more_than_queries(part: PartData, facts: ModelFacts, most: int) -> Iterator[Finding]:
    counts = objects_per_picture(part)
    rows = np.flatnonzero(counts > facts.num_queries)
    if not len(rows):
        return
    rows = rows[np.argsort(-counts[rows], kind="stable")]
    yield part.finding(
        "more-objects-than-queries",
        Level.HURTS,
        "pictures",
        f"[has|have] more objects than the model has queries ({facts.num_queries:,}); the most is "
        f"{int(counts.max()):,}",
        f"The surplus objects cannot be learned or found. Pass --num_queries {most} or more"
        + (" with --init_from, which keeps the weights." if facts.source else "."),
        [part.place(row, counted(int(counts[row]), "object")) for row in rows.tolist()],
        weight=1.5,
    )


def _more_than_counted(part: PartData, facts: ModelFacts) -> Iterator[Finding]:
    """Pictures with more objects of one class than AP counts detections, in what is evaluated."""
    if part.name == "train" or not len(part.owners):
        return
    objects = ~part.crowd
    pairs, counts = np.unique(
        np.stack([part.owners[objects], part.labels[objects]], axis=1), axis=0, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    over = [k for k in order.tolist() if counts[k] > facts.max_dets]
    if over:
        most = int(counts.max())
        yield finding(
            "more-objects-than-counted",
            Level.HURTS,
            f"{counted(len({int(pairs[k, 0]) for k in over}), 'picture')} of {part.name} {has(len(over))} more than "
            f"{facts.max_dets:,} objects of one class, and AP counts at most as many detections; the most is {most:,}",
            f"Some objects count as missed whatever the model finds. Pass --max_dets {most}, and say so beside the "
            "score.",
            [part.place(int(pairs[k, 0]), f"{counts[k]:,} objects of {part.names[int(pairs[k, 1])]}") for k in over],
            count=len(over),
            of=len(part.images),
            weight=0.8,
        )
