"""Findings about picture files: missing, unreadable, turned, of another size, blank, not listed, not annotated."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from datasets.annotations.file_names import hint_at
from datasets.annotations.headers import annotated_size
from datasets.annotations.picture_checks import warn_of_turned
from datasets.annotations.rules import box_array
from datasets.image_files import image_suffixes
from datasets.image_reader import find_missing
from tools.checking.entries import PartData, relative
from tools.checking.findings import Finding, Level, Place, finding, has, of_all
from tools.checking.model import ModelFacts
from tools.checking.scan import Seen, Wanted
from util.text import printable

EMPTY_HURTS = 0.5  # share of pictures without annotations from which they are rather forgotten than background
_DARK = "If they are too dark, save them as 8-bit pictures."
NOTES = {  # kinds of `datasets.image_decoding` → kind of finding, what the pictures have, what to do
    "depth": ("picture-16-bit", "more than 8 bits per pixel, and [is|are] scaled by [its|their] own samples", _DARK),
    "colours": ("picture-16-bit", "16-bit colours that are nearly black in 8 bits", _DARK),
    "frames": (
        "picture-frames",
        "several frames or pages, of which the first is used",
        "If objects are annotated in the others, save each frame as a picture of its own.",
    ),
}


def missing_rows(part: PartData) -> list[int]:
    """Rows of the pictures that are not there."""
    return find_missing(part.folder, _names(part))


def wanted_of(part: PartData, missing: Sequence[int], facts: ModelFacts) -> dict[int, Wanted]:
    """Row → what to read, of the pictures that are there."""
    absent = set(missing)
    return {
        row: Wanted(os.fspath(part.folder / image["file_name"]), annotated_size(image), facts.max_pixels)
        for row, image in enumerate(part.images)
        if row not in absent
    }


def fill_in_sizes(part: PartData, seen: dict[int, Seen]) -> None:
    """Give pictures without an annotated size that of their file."""
    for row, one in seen.items():
        if one.size is not None and not part.sizes[row].all():
            part.sizes[row] = one.size


def picture_findings(part: PartData, missing: Sequence[int], seen: dict[int, Seen]) -> Iterator[Finding]:
    """Everything about the picture files of one part."""
    yield from _missing(part, missing)
    yield from _unreadable(part, seen)
    yield from _listed_twice(part)
    yield from _other_size(part, seen)
    yield from _turned(part, seen)
    yield from _noted(part, seen)
    yield from _blank(part, seen)
    yield from _without_annotations(part)


def _missing(part: PartData, missing: Sequence[int]) -> Iterator[Finding]:
    if not missing:
        return
    hint = hint_at(part.folder, [part.images[row]["file_name"] for row in missing])
    yield part.finding(
        "picture-missing",
        Level.STOPS,
        "pictures",
        "[is|are] missing",
        f"{hint[:1].upper()}{hint[1:]}. Bring the files, correct `file_name`, or pass --skip_bad_images.",
        [part.place(row, "no such file") for row in missing],
        weight=2,
    )


def _unreadable(part: PartData, seen: dict[int, Seen]) -> Iterator[Finding]:
    rows = [row for row, one in seen.items() if one.error]
    if rows:
        yield part.finding(
            "picture-unreadable",
            Level.STOPS,
            "pictures",
            "cannot be read",
            "Training stops at them. Replace the files, remove their entries, or pass --skip_bad_images.",
            [part.place(row, seen[row].error) for row in rows],
            weight=2,
        )


def _listed_twice(part: PartData) -> Iterator[Finding]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, image in enumerate(part.images):
        rows[os.path.normpath(image["file_name"])].append(row)
    twice = [found for found in rows.values() if len(found) > 1]
    if twice:
        yield part.finding(
            "picture-listed-twice",
            Level.HURTS,
            "pictures",
            "[is|are] listed more than once",
            "Each entry counts as a picture of its own, whose objects are those of its id only. Merge the entries, and "
            "their annotations.",
            [
                part.place(found[0], f"ids {', '.join(str(part.images[row]['id']) for row in found[:4])}")
                for found in twice
            ],
            weight=1.2,
        )


def _other_size(part: PartData, seen: dict[int, Seen]) -> Iterator[Finding]:
    wrong = []
    for row, one in seen.items():
        size = annotated_size(part.images[row])
        if one.size is not None and size is not None and one.size != size:
            wrong.append(part.place(row, "{}x{} pixels, annotated as {}x{}".format(*one.size, *size)))
    if wrong:
        yield part.finding(
            "picture-size",
            Level.HURTS,
            "pictures",
            "[has|have] another size than annotated",
            "Their boxes were drawn for another size, so they are in the wrong place, and training with --masks "
            "refuses them. Put the original files back, or scale the boxes and correct `width` and `height`.",
            wrong,
            weight=2,
        )


def _turned(part: PartData, seen: dict[int, Seen]) -> Iterator[Finding]:
    turned = {row: one for row, one in seen.items() if one.header is not None and one.header.orientation != 1}
    as_stored = [row for row, one in turned.items() if one.size == one.header.size]
    upright = [row for row in turned if row not in set(as_stored)]
    if as_stored:
        misfit = [row for row in as_stored if _fits_only_upright(part, row, turned[row])]
        more = f"; the boxes of {len(misfit)} fit only the upright picture" if misfit else ""
        worst = misfit + [row for row in as_stored if row not in set(misfit)]
        yield part.finding(
            "picture-turned",
            Level.HURTS,
            "pictures",
            "[has|have] an EXIF orientation and [is|are] read as stored",
            "If the boxes were drawn on the upright picture that a browser shows, they are in the wrong place. Look at "
            "the pictures below. If so, save the files upright (ImageMagick: mogrify -auto-orient), or, for quarter "
            "turns, write the `width` and `height` of the upright picture.",
            [part.place(row, f"EXIF orientation {turned[row].header.orientation}") for row in worst],
            more=more,
            weight=2 if misfit else 0.8,
        )
    if upright:
        yield part.finding(
            "picture-turned-upright",
            Level.NOTE,
            "pictures",
            "[has|have] an EXIF orientation and [is|are] turned upright, as [its|their] size in the annotations is, or "
            "as YOLO's programs do",
            "Nothing to do.",
            [part.place(row, f"EXIF orientation {turned[row].header.orientation}") for row in upright],
            weight=0.1,
        )


def _noted(part: PartData, seen: dict[int, Seen]) -> Iterator[Finding]:
    for kind, (name, what, advice) in NOTES.items():
        rows = {row: dict(one.notes)[kind] for row, one in seen.items() if kind in dict(one.notes)}
        if rows:
            yield part.finding(
                name,
                Level.NOTE,
                "pictures",
                f"[has|have] {what}",
                f"Look at them below. {advice}",
                [part.place(row, _without_path(sentence, part, row)) for row, sentence in rows.items()],
                weight=0.4,
            )


def _blank(part: PartData, seen: dict[int, Seen]) -> Iterator[Finding]:
    rows = [row for row, one in seen.items() if one.is_blank]
    if not rows:
        return
    filled = set(part.owners.tolist())
    annotated = sum(row in filled for row in rows)
    yield part.finding(
        "picture-blank",
        Level.HURTS if annotated else Level.NOTE,
        "pictures",
        f"[is|are] of one colour, {annotated} of them with annotations",
        "There is nothing to see in them: a camera or an export failed. Replace or remove them.",
        [part.place(row) for row in sorted(rows, key=lambda row: row not in filled)],
        weight=1.2,
    )


def _without_annotations(part: PartData) -> Iterator[Finding]:
    rows = np.flatnonzero(np.bincount(part.owners, minlength=len(part.images)) == 0).tolist()
    if not rows or not len(part.owners):  # a part without any annotation is another finding
        return
    many = len(rows) >= EMPTY_HURTS * len(part.images)
    yield part.finding(
        "picture-without-annotations",
        Level.HURTS if many else Level.NOTE,
        "pictures",
        "[has|have] no annotation",
        "They are kept as background: the model learns that they show no object. If they do show objects, annotate "
        "them or remove the pictures.",
        [part.place(row) for row in rows],
        weight=0.8,
    )


def unlisted_findings(parts: Sequence[PartData]) -> Iterator[Finding]:
    """Picture files beside the listed ones that no part lists."""
    listed: dict[str, set[str]] = defaultdict(set)  # folder → names
    owner: dict[str, PartData] = {}
    for part in parts:
        real = {inner: os.path.realpath(part.folder / inner) for inner in {os.path.dirname(n) for n in _names(part)}}
        for name in _names(part):
            listed[real[os.path.dirname(name)]].add(os.path.basename(name))
        for folder in real.values():
            owner.setdefault(folder, part)
    suffixes = image_suffixes()
    for folder, names in listed.items():
        found = [name for name in _files_in(folder) if os.path.splitext(name)[1].lower() in suffixes]
        extra = [name for name in found if name not in names]
        if extra:
            yield finding(
                "picture-not-listed",
                Level.NOTE,
                f"{of_all(len(extra), len(found), 'picture files')} in {folder} {has(len(extra), 'is', 'are')} not "
                "listed in the annotations",
                "They are not used. Add them, with their annotations or as background, or move them elsewhere.",
                [
                    Place(owner[folder].name, relative(os.path.join(folder, name), owner[folder].root), "not listed")
                    for name in extra
                ],
                of=len(found),
                weight=0.5,
            )


def _names(part: PartData) -> list[str]:
    return [image["file_name"] for image in part.images]


def _without_path(sentence: str, part: PartData, row: int) -> str:
    """What a note says of a picture, without its path, which a place names already."""
    return sentence.removeprefix(f"{printable(part.folder / part.images[row]['file_name'])} ")


def _files_in(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
    except OSError:
        return []


def _fits_only_upright(part: PartData, row: int, one: Seen) -> bool:
    annotations = [part.annotations[k] for k in np.flatnonzero(part.owners == row).tolist()]
    header = {part.images[row]["id"]: one.header}
    warning = warn_of_turned({part.images[row]["id"]: part.images[row]}, header, {part.images[row]["id"]: annotations})
    return bool(len(box_array(annotations))) and "fit only" in warning
