"""Writing YOLO: images/, labels/, data.yaml. Fractions have as many digits as the pixels need to come back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from datasets.annotations.boxes import ROUNDING
from datasets.annotations.headers import read_header
from datasets.formats.numbers import EXACT, exact
from datasets.formats.yolo.config import IDS
from datasets.formats.yolo.labels import box_in_pixels
from tools.converting.content import Content, Picture, check_names, keypoints_left_out
from tools.converting.output import place_pictures
from tools.converting.polygons import joined, turned_box, turned_points

DIGITS = (6, 10, 17, 21, 26, 32, 40)  # decimal places of a fraction; the first that suffice are written
LABELS = ("auto", "boxes", "polygons")


def write_yolo(out: Path, parts: dict[str, Content], *, link: bool, labels: str = "auto") -> list[str]:
    """Write all parts; returns what YOLO's format cannot hold, one sentence each.

    Args:
        labels: "boxes"; "polygons", where an object without one gets the corners of its box; "auto": polygons if that
            loses nothing, which means that each object has one, and its box is the one around it.

    Raises:
        OSError, ValueError: two images share a label file, or a file cannot be written.
    """
    check_names({name: content.pictures for name, content in parts.items()}, by_stem=True)
    categories = next(iter(parts.values())).coco["categories"]
    numbers = {category["id"]: number for number, category in enumerate(categories)}
    every = [a for content in parts.values() for picture in content.pictures for a in picture.annotations]
    objects = [annotation for annotation in every if not annotation.get("iscrowd")]
    polygons = labels == "polygons" or (labels == "auto" and bool(objects) and all(map(_is_one_polygon, objects)))
    left_out = dict.fromkeys(("crowds", "empty", "clamped", "corners"), 0)
    for part, content in parts.items():
        images, texts = out / "images" / part, out / "labels" / part
        texts.mkdir(parents=True)
        place_pictures([(picture.file, images / picture.name) for picture in content.pictures], link=link)
        for picture in content.pictures:
            path = (texts / picture.name).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(_lines(picture, numbers, polygons, left_out)), encoding="ascii", newline="")
    config: dict[str, Any] = {part: f"images/{part}" for part in parts}
    config["names"] = {numbers[category["id"]]: category["name"] for category in categories}
    if any(category != number for category, number in numbers.items()):
        config[IDS] = list(numbers)
    text = yaml.safe_dump(config, allow_unicode=True, sort_keys=False, width=10**6)
    (out / "data.yaml").write_text(text, encoding="utf-8", newline="")
    masks = 0 if polygons else sum(bool(annotation.get("segmentation")) for annotation in objects)
    return [*keypoints_left_out(parts), *_sentences(left_out, masks)]


def _lines(picture: Picture, numbers: dict[int, int], polygons: bool, left_out: dict[str, int]) -> Iterable[str]:
    width, height = picture.size
    header = read_header(picture.file)
    # YOLO's programs read images upright: boxes that were drawn on the image as stored are turned with it.
    turn = header.orientation if header and header.upright_size != header.size else 1
    if turn != 1 and picture.size == header.upright_size:
        turn = 1
    upright = (height, width) if turn != 1 else (width, height)
    for annotation in picture.annotations:
        if annotation.get("iscrowd"):
            left_out["crowds"] += 1
            continue
        box = turned_box(annotation["bbox"], picture.size, turn)
        inside = _inside(box, upright)
        if inside is None:
            left_out["empty"] += 1
            continue
        left_out["clamped"] += inside != box
        if polygons:
            points = _points(annotation)
            left_out["corners"] += points is None
            points = turned_points(points, picture.size, turn) if points else _corners(inside)
            values = _polygon_fractions(points, upright)
        else:
            values = _box_fractions(inside, upright)
        yield f"{numbers[annotation['category_id']]} {' '.join(values)}\n"


def _inside(box: Sequence[float], size: tuple[int, int]) -> list[float] | None:
    """A box clamped to its image if it exceeds it by more than rounding does; None if nothing is inside."""
    x, y, w, h = box
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, size[0]), min(y + h, size[1])
    if right <= left or bottom <= top:
        return None
    if max(left - x, top - y, x + w - right, y + h - bottom) <= ROUNDING:
        return list(box)
    return [left, top, right - left, bottom - top]


def _is_one_polygon(annotation: dict[str, Any]) -> bool:
    """Whether a box and a polygon say the same."""
    polygons = annotation.get("segmentation")
    if not isinstance(polygons, list) or len(polygons) != 1 or not _is_polygon(polygons[0]):
        return False
    xs, ys = polygons[0][::2], polygons[0][1::2]
    x, y, w, h = annotation["bbox"]
    differences = (min(xs) - x, min(ys) - y, max(xs) - x - w, max(ys) - y - h)
    return max(map(abs, differences)) <= ROUNDING


def _is_polygon(points: Any) -> bool:
    return isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0 and all(map(_is_finite, points))


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**31


def _points(annotation: dict[str, Any]) -> list[float] | None:
    """The polygon of an object; several are joined. None if it has none, as with a run-length code."""
    polygons = annotation.get("segmentation")
    usable = [points for points in polygons if _is_polygon(points)] if isinstance(polygons, list) else []
    return joined(usable) if usable else None


def _corners(box: Sequence[float]) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def _box_fractions(box: Sequence[float], size: tuple[int, int]) -> list[str]:
    width, height = map(Decimal, size)
    x, y, w, h = map(exact, box)
    fractions = (
        EXACT.divide(EXACT.add(x, EXACT.divide(w, 2)), width),
        EXACT.divide(EXACT.add(y, EXACT.divide(h, 2)), height),
        EXACT.divide(w, width),
        EXACT.divide(h, height),
    )
    for digits in DIGITS:
        texts = [_text(value, digits) for value in fractions]
        if box_in_pixels(list(map(Decimal, texts)), width, height) == list(map(float, box)):
            break
    return texts


def _polygon_fractions(points: Sequence[float], size: tuple[int, int]) -> list[str]:
    return [_fraction(min(max(value, 0), size[place % 2]), size[place % 2]) for place, value in enumerate(points)]


def _fraction(value: float, side: int) -> str:
    fraction = EXACT.divide(exact(value), Decimal(side))
    for digits in DIGITS:
        text = _text(fraction, digits)
        if float(EXACT.multiply(Decimal(text), Decimal(side))) == value:
            break
    return text


def _text(value: Decimal, digits: int) -> str:
    text = format(value, f".{digits}f").rstrip("0")
    return text + "0" if text.endswith(".") else text


def _sentences(left_out: dict[str, int], masks: int) -> Iterable[str]:
    for key, sentence in (
        ("crowds", "{:,} crowd regions are left out: YOLO's labels know none"),
        ("empty", "{:,} boxes without area inside their image are left out, as training leaves them out"),
        ("clamped", "{:,} boxes extend beyond their image and are clamped to it, as training clamps them"),
        ("corners", "{:,} objects without a polygon are written as the corners of their box"),
    ):
        if left_out[key]:
            yield sentence.format(left_out[key])
    if masks:
        yield f"{masks:,} segmentations are left out, because boxes are written: --labels polygons writes polygons"
