"""Findings about boxes: outside, empty, tiny, corners or fractions in place of sizes in pixels.

`N` objects of a part. Crowd regions are looked at too: evaluation needs their boxes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from datasets.annotations.boxes import ROUNDING, Boxes, far_beyond
from tools.checking.entries import PartData
from tools.checking.findings import Finding, Level, finding
from tools.checking.model import ModelFacts

TINY = 8  # pixels at train size: the side of a square of the box's area
TINY_HURTS = 0.02  # share of a part's objects
TINY_CLASS = 0.3  # share of a class's objects


def box_findings(part: PartData, facts: ModelFacts) -> Iterator[Finding]:
    """Everything about the boxes of one part, each by itself."""
    if not len(part.boxes):
        return
    limits = part.sizes[part.owners]  # [N, wh]
    limits[limits == 0] = np.inf
    ends = part.boxes[:, :2] + part.boxes[:, 2:]
    inside = np.clip(ends, 0, limits) - np.clip(part.boxes[:, :2], 0, limits)  # [N, wh] of what is left in the picture
    empty = (inside <= 0).any(axis=1)
    over = np.maximum(ends - limits, -part.boxes[:, :2]).max(axis=1)  # pixels beyond the picture
    margin = far_beyond(part.sizes[part.owners]) - part.sizes[part.owners]
    far = ~empty & ((ends > limits + margin) | (part.boxes[:, :2] < -margin)).any(axis=1)
    near = ~empty & ~far & (over > ROUNDING)
    yield from _wrong_units(part)
    yield from _empty(part, empty)
    yield from _outside(part, far, near, over)
    yield from _tiny(part, inside, empty, facts)
    yield from _crowds(part)


def _empty(part: PartData, empty: np.ndarray) -> Iterator[Finding]:
    rows = np.flatnonzero(empty)
    if not len(rows):
        return
    yield part.finding(
        "box-empty",
        Level.HURTS,
        "boxes",
        "[has|have] no area inside [its|their] picture",
        "Training drops them, so the objects are missing. Draw the boxes again, or remove the annotations.",
        [
            part.object_place(k, f"{part.class_name(k)}: box {_shown(part.boxes[k])}{_of(part, k)}")
            for k in rows.tolist()
        ],
        weight=1.2,
    )


def _outside(part: PartData, far: np.ndarray, near: np.ndarray, over: np.ndarray) -> Iterator[Finding]:
    def places(found: np.ndarray) -> list:
        rows = np.flatnonzero(found)
        return [
            part.object_place(
                k, f"{part.class_name(k)}: box {_shown(part.boxes[k])}{_of(part, k)}, {over[k]:.4g} pixels beyond"
            )
            for k in rows[np.argsort(-over[rows], kind="stable")].tolist()
        ]

    if far.any():
        yield part.finding(
            "box-outside",
            Level.HURTS,
            "boxes",
            "[reaches|reach] beyond [its|their] picture",
            "Training clamps them to the picture. So far beyond, they usually belong to another picture, or to another "
            "size of this one: look at them, and draw them again.",
            places(far),
            weight=1.1,
        )
    if near.any():
        yield part.finding(
            "box-over-edge",
            Level.NOTE,
            "boxes",
            "[reaches|reach] slightly beyond [its|their] picture",
            "Training clamps them, which is usually what was meant.",
            places(near),
            weight=0.2,
        )


def _tiny(part: PartData, inside: np.ndarray, empty: np.ndarray, facts: ModelFacts) -> Iterator[Finding]:
    sides = np.sqrt(np.clip(inside, 0, None).prod(axis=1)) * facts.scales(part.sizes)[part.owners]  # [N]
    objects = ~empty & ~part.crowd
    tiny = objects & (sides < TINY)
    if not tiny.any():
        return
    worst, share = _class_most_in(part, tiny, objects)
    hurts = tiny.sum() >= TINY_HURTS * objects.sum() or share >= TINY_CLASS
    rows = np.flatnonzero(tiny)
    rows = rows[np.argsort(sides[rows], kind="stable")]
    mostly = f"; most are {part.names[worst]!r}, {share:.0%} of that class" if share >= TINY_HURTS else ""
    yield part.finding(
        "box-tiny",
        Level.HURTS if hurts else Level.NOTE,
        "objects",
        f"[is|are] smaller than {TINY} x {TINY} pixels at train size (short side {facts.train_size})",
        "The model hardly sees them: one step of its feature map is 32 pixels, 16 with --dilation. Pass larger "
        "--train_sizes, --val_size and --max_size, cut the pictures into tiles, or remove annotations made by a slip.",
        [
            part.object_place(
                k, f"{part.class_name(k)}: box {_shown(part.boxes[k])}, {sides[k]:.2g} pixels at train size"
            )
            for k in rows.tolist()
        ],
        more=mostly,
        weight=0.6,
    )


def _class_most_in(part: PartData, found: np.ndarray, objects: np.ndarray) -> tuple[int, float]:
    """The class with the most of the objects that were found, and the share of its objects that they are."""
    ids, counts = np.unique(part.labels[found], return_counts=True)
    most = int(ids[counts.argmax()])
    return most, float(counts.max() / (objects & (part.labels == most)).sum())


def _wrong_units(part: PartData) -> Iterator[Finding]:
    """Boxes that are corners, fractions or rotated, found as training finds them."""
    images = [
        image | ({"width": int(width), "height": int(height)} if width > 0 else {})
        for image, (width, height) in zip(part.images, part.sizes, strict=True)
    ]
    boxes = Boxes.of(part.annotations, part.boxes, images, part.folder)
    for kind, look, weight in (
        ("box-corners", boxes.corners, 3.0),
        ("box-fractions", boxes.fractions, 2.5),
        ("box-rotated", boxes.rotations, 0.9),
    ):
        level = Level.HURTS
        try:
            warning = look()
        except ValueError as error:
            warning, level = str(error), Level.STOPS
        if warning:
            what, _, advice = warning.rpartition(": ")
            yield finding(
                kind,
                level,
                f"{part.name}: {what}",
                advice[:1].upper() + advice[1:] + ".",
                [part.place(row) for row in np.unique(part.owners)[:1].tolist()],
                weight=weight,
            )


def _crowds(part: PartData) -> Iterator[Finding]:
    if part.crowd.any():
        yield part.finding(
            "crowds",
            Level.NOTE,
            "annotations",
            "[is a crowd region|are crowd regions] (iscrowd 1, or Pascal VOC's difficult)",
            "Training leaves them out, evaluation ignores what is found inside them, as in COCO.",
            [part.object_place(k, part.class_name(k))._replace(row=None) for k in np.flatnonzero(part.crowd).tolist()],
            weight=0.1,
        )


def _shown(box: np.ndarray) -> str:
    return f"[{', '.join(f'{value:.6g}' for value in box.tolist())}]"


def _of(part: PartData, index: int) -> str:
    """The picture's size, for a message."""
    width, height = part.sizes[part.owners[index]].tolist()
    return f" in a picture of {width:.0f}x{height:.0f}" if width else ""
