"""COCO JSON files as they lie: the published layout and the exports of annotation tools."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from datasets.annotations.rules import read_json
from datasets.formats.coco_head import is_instances_file, names_of_images
from datasets.formats.image_names import NameRule, locate_images
from datasets.formats.part import NAMES, FoundData, Part
from datasets.formats.part_names import part_of
from datasets.formats.tree import Tree
from util.text import printable

PUBLISHED_FILE, PUBLISHED_IMAGES = "annotations/instances_{}2017.json", "{}2017"
OTHER_TASKS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")  # beside `instances` files
MOST_FILES = 200  # JSON files of a folder that are looked at
ROBOFLOW = "_annotations.coco.json"


def find_coco(tree: Tree) -> list[FoundData]:
    """The COCO data sets in a folder.

    The published layout is read as it is. Of other JSON files, the names of a file and its folders say which part it
    is, and the folder of its images is the one that holds the files it lists.

    Raises:
        ValueError: two files are of the same part, or the images of none of the files are found.
    """
    published = {name: tree.root / PUBLISHED_FILE.format(name) for name in NAMES}
    published = {name: file for name, file in published.items() if _is_in(tree, file)}
    files = [file for file in _json_files(tree) if file.name == ROBOFLOW or is_instances_file(file)]
    if published:
        others = [
            file
            for file in files
            if file.parent != tree.root / "annotations" or not file.name.startswith((*OTHER_TASKS, "instances"))
        ]
        return [_published(tree, published), *_others(tree, others)]
    return _others(tree, files)


def read_coco_file(file: Path, rule: NameRule) -> dict[str, Any]:
    """The content of a COCO file; `rule` makes its file names those of the images.

    Raises:
        OSError, ValueError: see `datasets.annotations.rules.read_json`; or two file names become one.
    """
    data = read_json(file)
    if rule.is_identity:
        return data
    seen: dict[str, str] = {}
    for image in data["images"]:
        if isinstance(image, dict) and isinstance(image.get("file_name"), str):
            listed = image["file_name"]
            image["file_name"] = name = rule(listed)
            if seen.setdefault(name, listed) != listed:
                raise ValueError(
                    f"{printable(file)} lists '{printable(seen[name])}' and '{printable(listed)}', of which only one "
                    f"file is there, '{printable(name)}': keep the folders of the images as the file lists them"
                )
    return data


def _published(tree: Tree, files: dict[str, Path]) -> FoundData:
    places = {name: tree.root / PUBLISHED_IMAGES.format(name) for name in files}
    known = {name: (place, NameRule()) for name, place in places.items() if place in tree.files}
    parts, unusable = _parts(tree, files, known)
    return FoundData("COCO", tree.root, parts, next(iter(files.values())), unusable=unusable)


def _others(tree: Tree, files: list[Path]) -> list[FoundData]:
    """The data set that these files are the annotations of, if there are any."""
    if not files:
        return []
    of_part: dict[str | None, list[Path]] = {}
    for file in files:
        of_part.setdefault(part_of(file.relative_to(tree.root)), []).append(file)
    for part, found in of_part.items():
        instances = [file for file in found if file.name.startswith("instances")]
        of_part[part] = instances if len(instances) == 1 else found
    repeated = [found for found in of_part.values() if len(found) > 1]
    if repeated or (None in of_part and len(of_part) > 1):
        named = repeated[0] if repeated else [found[0] for found in of_part.values()]
        raise ValueError(
            f"{printable(tree.root)} holds {len(files)} COCO files, and their names do not tell which part each is: "
            f"{', '.join(tree.relative(file) for file in named[:4])}{', …' if len(named) > 4 else ''}. Name them after "
            "their part (train, val, test), move the others elsewhere, or pass --train_ann, --train_images, --val_ann "
            "and --val_images instead of --data"
        )
    parts, unusable = _parts(tree, {part or "train": file for part, (file,) in of_part.items()}, {})
    first = next(iter(parts.values()))
    return [FoundData(_kind(first), tree.root, parts, first.source, None in of_part, unusable)]


def _parts(
    tree: Tree, files: dict[str, Path], known: dict[str, tuple[Path, NameRule]]
) -> tuple[dict[str, Part], dict[str, str]]:
    """The parts, and what is wrong with those whose images are not found; an error if it is all of them.

    Args:
        known: where the images of a part are, if that is known.
    """
    parts, faults = {}, {}
    for name, file in files.items():
        try:
            images, rule = known.get(name) or locate_images(
                tree, file, names_of_images(file), part_of(file.relative_to(tree.root))
            )
        except (OSError, ValueError) as error:
            faults[name] = error
        else:
            parts[name] = Part(images, file, partial(read_coco_file, file, rule))
    if not parts:
        raise next(iter(faults.values()))
    return parts, {name: str(fault) for name, fault in faults.items()}


def _kind(part: Part) -> str:
    name, folder = part.source.name, part.source.parent
    if name == ROBOFLOW:
        return "Roboflow COCO"
    if name == "result.json":
        return "Label Studio COCO"
    images = folder.parent / "images"
    if name.startswith("instances_") and folder.name == "annotations" and part.images.is_relative_to(images):
        return "CVAT COCO"
    return "COCO"


def _json_files(tree: Tree) -> list[Path]:
    """The JSON files that may be COCO's. Where a folder holds many, they are of a format with a file for each image."""
    files = tree.with_suffix(".json")
    counts = Counter(file.parent for file in files)
    return [file for file in files if counts[file.parent] <= MOST_FILES]


def _is_in(tree: Tree, file: Path) -> bool:
    return file.name in tree.files.get(file.parent, ())
