"""`split_part`: one part of a data set → its training and its validation part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from datasets.annotations.instances import read_coco
from datasets.annotations.relatives import translate
from datasets.formats.part import Part
from datasets.splits.divide import Division, Pictures, divide
from datasets.splits.near_duplicates import groups_of_near_duplicates, hash_files
from datasets.splits.record import Split
from util.dist import is_main_process, run_on_main
from util.logging import get_logger
from util.settings import MAX_PIXELS
from util.text import printable

NAMED = 12  # classes whose counts one line names
LONG = 2000  # pictures whose comparison is announced


class SplitParts(NamedTuple):
    """The two sides of a part, and the record of the split."""

    train: Part
    val: Part
    split: Split


def split_part(
    part: Part,
    share: float,
    *,
    val_groups: str = "near",
    earlier: Split | None = None,
    added_train: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> SplitParts:
    """Split off a share of the pictures of a part for validation, and log what was done in one line.

    The rule is that of `datasets.splits.divide`. A collective call: the main process reads the pictures.

    Args:
        part: read, and its picture files too, unless `val_groups` is "none" or `earlier` knows all of them.
        share: of the pictures, in (0, 1).
        val_groups: "near" keeps near-duplicates on one side; "none" splits every picture by itself.
        earlier, added_train: see `divide`.
        max_pixels: a file with more pixels is not compared.

    Raises:
        OSError, ValueError: the part cannot be read, or one side would have no pictures.
    """

    def compute() -> Split:
        coco, _ = read_coco(part.source, part.images, report=False, read=part.read)
        pictures = Pictures.of(coco.dataset)
        known = earlier is not None and all(name in earlier.sides for name in pictures.names)
        groups = _groups(part, pictures.names, max_pixels) if val_groups == "near" and not known else []
        division = divide(pictures, groups, share, val_groups=val_groups, earlier=earlier, added_train=added_train)
        get_logger().info(describe(division, len(pictures.names)))
        return division.split

    split = run_on_main(compute)
    return SplitParts(side_of(part, split.train), side_of(part, split.val), split)


def side_of(part: Part, names: Sequence[str]) -> Part:
    """The part with these pictures only."""
    return Part(part.images, part.source, partial(read_side, part.reader, part.images, frozenset(names)))


def read_side(reader: Callable[[], dict[str, Any]], folder: Path, names: frozenset[str]) -> dict[str, Any]:
    """What `reader` returns, with only the pictures of these names and without the annotations of the others."""
    data = reader()
    images = data["images"]
    named = {"images": [dict(image) for image in images], "annotations": [], "categories": []}
    translate(named, folder)  # the names that the checks will find; they are the ones that say so
    kept = [image.get("file_name") in names for image in named["images"]]
    others = {_plain(image.get("id")) for image, keep in zip(images, kept, strict=True) if not keep}
    data["images"] = [image for image, keep in zip(images, kept, strict=True) if keep]
    data["annotations"] = [entry for entry in data["annotations"] if _plain(entry.get("image_id")) not in others]
    return data


def describe(division: Division, images: int) -> str:
    """What was done, in one line, with the counts of each class."""
    split = division.split
    parts = [f"{len(split.train):,} to training, {len(split.val):,} to validation"]
    if split.left_out:
        parts.append(f"{len(split.left_out):,} left out as near-duplicates of validation images")
    if division.groups:
        many = f"{division.groups:,} group{'s' * (division.groups > 1)}"
        parts.append(f"{division.grouped:,} near-duplicates in {many}, each group on one side")
    if division.moved:
        parts.append(f"{division.moved:,} moved across for balance")
    if division.added:
        parts.append(f"{division.added:,} new since the earlier split, whose images keep their side")
    counts = [
        f"{printable(name, 40)} {sides['train'][0]:,} + {sides['val'][0]:,}"
        for name, sides in list(split.classes.items())[:NAMED]
    ]
    more = f" and {len(split.classes) - NAMED:,} more classes" if len(split.classes) > NAMED else ""
    return (
        f"--val_share {split.val_share:g} split {images:,} images: {'; '.join(parts)}; images of each class, "
        f"training + validation: {', '.join(counts) or 'there are no classes'}{more}"
    )


def _groups(part: Part, names: Sequence[str], max_pixels: int) -> list[list[int]]:
    if len(names) >= LONG and is_main_process():
        get_logger().info(f"looking for near-duplicates among {len(names):,} images (--val_groups none: without)")
    return groups_of_near_duplicates(names, hash_files([part.images / name for name in names], max_pixels=max_pixels))


def _plain(value: Any) -> Any:
    """An image's id as a number, if it is one: annotation files write 12, 12.0 and "12"."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return value if isinstance(value, str) else None
