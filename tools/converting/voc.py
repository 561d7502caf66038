"""Writing Pascal VOC: JPEGImages, Annotations, ImageSets/Main. Boxes keep their decimals."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any
from xml.sax.saxutils import escape

from datasets.formats.numbers import EXACT, exact, text_of
from datasets.formats.voc.categories import CATEGORIES_FILE
from tools.converting.content import Content, Picture, check_names, keypoints_left_out
from tools.converting.output import place_pictures
from util.files import write_json
from util.text import printable

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BREAKS = {"\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}


def write_voc(out: Path, parts: dict[str, Content], *, link: bool) -> list[str]:
    """Write all parts; returns what VOC's format cannot hold, one sentence each.

    Where two parts have images of one name, both get a folder for each part. Class ids other than 1, 2, … in
    alphabetical order are kept in `coco_categories.json`.

    Raises:
        OSError, ValueError: VOC's files cannot hold a name, two classes or images share one, or a file cannot be
            written.
    """
    check_names({name: content.pictures for name, content in parts.items()}, by_stem=True)
    categories = next(iter(parts.values())).coco["categories"]
    names = {category["id"]: category["name"] for category in categories}
    _check_classes(list(names.values()))
    divided = _share_names(parts)
    used = set()
    for part, content in parts.items():
        lines, files = [], []
        for picture in content.pictures:
            name = PurePosixPath(part) / picture.name if divided else picture.name
            key = name.with_suffix("")
            lines.append(_list_entry(str(key), picture))
            files.append((picture.file, out / "JPEGImages" / name))
            path = out / "Annotations" / f"{key}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_xml(picture, name, names), encoding="utf-8", newline="")
            used.update(annotation["category_id"] for annotation in picture.annotations)
        place_pictures(files, link=link)
        listed = out / "ImageSets" / "Main" / f"{part}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
    inferred = [{"id": number, "name": names[key]} for number, key in enumerate(sorted(used, key=names.get), start=1)]
    if inferred != categories:
        write_json(out / CATEGORIES_FILE, categories)
    return _left_out(parts)


def _check_classes(names: list[str]) -> None:
    for name in names:
        if _NOT_IN_XML.search(name):
            raise ValueError(f"the class '{printable(name, 80)}' has a letter that XML cannot hold: rename it")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"two classes are named '{printable(repeated, 80)}', and VOC tells them by name: rename one")


def _share_names(parts: dict[str, Content]) -> bool:
    seen: set[PurePosixPath] = set()
    for content in parts.values():
        names = {picture.name.with_suffix("") for picture in content.pictures}
        if not seen.isdisjoint(names):
            return True
        seen |= names
    return False


def _list_entry(key: str, picture: Picture) -> str:
    """The line of a list, in quotes where spaces at its ends would be lost."""
    try:
        key.encode()
    except UnicodeEncodeError:
        key = "\n"
    if key.splitlines() != [key]:
        raise ValueError(
            f"the name of the image {printable(picture.file)} has a line break or is not in UTF-8, which VOC's lists "
            "cannot hold: rename it"
        )
    return f'"{key}"' if key != key.strip() else key


def _xml(picture: Picture, name: PurePosixPath, names: dict[int, str]) -> str:
    width, height = picture.size
    stated = "" if _NOT_IN_XML.search(name.name) else f"\t<filename>{escape(name.name, _BREAKS)}</filename>\n"
    objects = "".join(_object(annotation, names[annotation["category_id"]]) for annotation in picture.annotations)
    size = f"<width>{width}</width><height>{height}</height><depth>3</depth>"
    return f"<annotation>\n{stated}\t<size>{size}</size>\n\t<segmented>0</segmented>\n{objects}</annotation>\n"


def _object(annotation: dict[str, Any], name: str) -> str:
    x, y, width, height = map(exact, annotation["bbox"])
    sides = {
        "xmin": EXACT.add(x, 1),
        "ymin": EXACT.add(y, 1),
        "xmax": EXACT.add(x, width),
        "ymax": EXACT.add(y, height),
    }
    box = "".join(f"<{side}>{text_of(value)}</{side}>" for side, value in sides.items())
    space = ' xml:space="preserve"' if name != name.strip() else ""
    pose = annotation.get("pose")
    pose = pose if isinstance(pose, str) and not _NOT_IN_XML.search(pose) else "Unspecified"
    flags = {key: int(annotation.get(key) in (1, True)) for key in ("truncated", "occluded")}
    flags["difficult"] = int(bool(annotation.get("iscrowd")) or annotation.get("difficult") in (1, True))
    return (
        f"\t<object>\n\t\t<name{space}>{escape(name, _BREAKS)}</name>\n\t\t<pose>{escape(pose, _BREAKS)}</pose>\n"
        + "".join(f"\t\t<{key}>{value}</{key}>\n" for key, value in flags.items())
        + f"\t\t<bndbox>{box}</bndbox>\n\t</object>\n"
    )


def _left_out(parts: dict[str, Content]) -> list[str]:
    annotations = [a for content in parts.values() for picture in content.pictures for a in picture.annotations]
    masks = sum(bool(annotation.get("segmentation")) for annotation in annotations)
    crowds = sum(bool(annotation.get("iscrowd")) for annotation in annotations)
    notes = keypoints_left_out(parts)
    if masks:
        notes.append(f"{masks:,} segmentations are left out: VOC's XML files hold boxes")
    if crowds:
        notes.append(f"{crowds:,} crowd regions are marked difficult, as which they are read again")
    return notes
