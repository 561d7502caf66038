"""The pictures of a report: the worst, and some at random, with their boxes drawn."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.annotations.headers import annotated_size
from datasets.image_decoding import read_image
from tools.checking.entries import PartData, corners
from tools.checking.findings import Finding, Place
from util.pages.markup import Html
from util.pages.page import picture_html
from util.pages.pictures import jpeg_uri
from util.pictures.boxes import color_of, draw_boxes
from util.text import printable

WORST, RANDOM = 16, 12  # pictures
OF_ONE = 3  # worst pictures of one finding, as long as there are others
SIDE = 560  # pixels of a drawn picture's long side
MOST_LABELLED = 40  # boxes of a picture whose classes are written
MOST_DRAWN = 400  # boxes of a picture
FAULTY = (225, 30, 40)


class Choice(NamedTuple):
    """A picture to draw."""

    part: str
    row: int
    caption: str
    boxes: tuple[tuple[float, float, float, float], ...]  # those at fault, xyxy in pixels


def worst_pictures(findings: Sequence[Finding], readable: set[tuple[str, int]]) -> list[Choice]:
    """Pictures at fault: a few of each finding, the worst finding first, then more of them.

    Args:
        findings: the worst first.
        readable: (part, row) of the pictures that can be drawn.
    """
    chosen: dict[tuple[str, int], Choice] = {}
    for of_one in (OF_ONE, WORST):
        for found in findings:
            taken = 0
            for place in found.places:
                if len(chosen) >= WORST or taken >= of_one:
                    break
                key = (place.part, place.row)
                if place.row is not None and key in readable:
                    taken += 1
                    if key not in chosen:
                        chosen[key] = Choice(*key, _caption(found, place), _of_picture(found, key))
                        if place.other in readable and place.other not in chosen:
                            chosen[place.other] = Choice(*place.other, "the other picture", ())
    return list(chosen.values())


def random_pictures(readable: Iterable[tuple[str, int]], parts: Sequence[PartData]) -> list[Choice]:
    """Some of all pictures, the same ones each time."""
    keys = sorted(readable)
    picked = sorted(random.Random(0).sample(keys, min(RANDOM, len(keys))))
    by_name = {part.name: part for part in parts}
    return [Choice(name, row, by_name[name].file(row), ()) for name, row in picked]


def drawn(choice: Choice, part: PartData, max_pixels: int) -> Html | None:
    """The picture with its boxes, those at fault in red; None if it cannot be read any more."""
    image = part.images[choice.row]
    path = part.folder / image["file_name"]
    try:
        picture = read_image(path, annotated_size(image), max_pixels=max_pixels, note=lambda kind, sentence: None)
    except OSError:
        return None
    scale = min(1.0, SIDE / max(picture.size))
    reduced = tuple(max(1, round(side * scale)) for side in picture.size)
    picture = picture.resize(reduced, Image.Resampling.BILINEAR) if scale < 1 else picture
    objects = np.flatnonzero(part.owners == choice.row)[:MOST_DRAWN]
    boxes = corners(part.boxes[objects])  # [n, 4]
    names = [printable(part.class_name(k), 60) for k in objects.tolist()]
    colors = [color_of(int(part.labels[k])) for k in objects.tolist()]
    if choice.boxes:
        faulty = np.isin(np.arange(len(boxes)), _rows_of(boxes, np.array(choice.boxes)))
        colors = [FAULTY if wrong else color for wrong, color in zip(faulty, colors, strict=True)]
    else:
        faulty = np.zeros(len(boxes), dtype=bool)
    if len(boxes) > MOST_LABELLED:
        names = [name if wrong else "" for name, wrong in zip(names, faulty, strict=True)]
    order = np.argsort(~faulty, kind="stable")  # those at fault on top
    ordered = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    canvas = draw_boxes(
        picture, ordered[order] * scale, [names[k] for k in order], [colors[k] for k in order], min_side=300
    )
    return picture_html(jpeg_uri(canvas, max_side=900, quality=75), choice.caption)


def _caption(found: Finding, place: Place) -> str:
    detail = f" – {place.detail}" if place.detail else ""
    return f"{place.file} – {found.kind}{detail}"


def _of_picture(found: Finding, key: tuple[str, int]) -> tuple[tuple[float, float, float, float], ...]:
    """All boxes of a picture that one finding is about."""
    return tuple(box for place in found.places if (place.part, place.row) == key for box in place.boxes)


def _rows_of(boxes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rows of `boxes` [n, 4] that are among `wanted` [m, 4]."""
    return np.flatnonzero((boxes[:, None] == wanted[None]).all(axis=2).any(axis=1))
