"""Make a data set from some images of another: `python -m tools.subset DATA OUT --split train --ids 9 25`.

DATA has COCO's layout or any other format that `main.py --data` reads. OUT has COCO's layout, with the same images for
training and validation, to check that a model can overfit them. Folders of images and of panoptic PNGs are linked, not
copied.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.annotations.rules import read_json
from datasets.formats.choose import part_named
from datasets.formats.find import find_data
from tools.command import refuse_input, run_tool, say, tool_parser
from util.files import write_json

KINDS = ("instances", "panoptic")


def write_subset(root: Path, out: Path, split: str, ids: Sequence[int]) -> dict[str, int]:
    """Write the annotations of some images of `root` to `out`, as train2017 and as val2017.

    Args:
        root: in COCO's layout, or a data set of another format, see `datasets.formats.find.find_data`.
        out: the folder to write.
        split: the part of `root` with the images; where it tells no parts apart, all its images are there.
        ids: of the images.

    Returns:
        The number of annotations, or of segments in a panoptic file, per kind of file that `root` has.

    Raises:
        OSError, ValueError: the split has no annotation file, the file lacks one of the images, or `out` holds files of
            `root`.
    """
    files = {kind: root / "annotations" / f"{kind}_{split}2017.json" for kind in KINDS}
    found = {kind: read_json(path, kind) for kind, path in files.items() if path.is_file()}
    folders = {pattern: root / pattern.format(split) for pattern in ("{}2017", "panoptic_{}2017")}
    if not found:
        data = find_data(root)
        part = part_named(data, None if data.undivided else split)
        files["instances"], folders = part.source, {"{}2017": part.images}
        found["instances"] = part.read()
    kept = {kind: _keep(content, ids, files[kind]) for kind, content in found.items()}
    for name in ("train", "val"):
        for kind in kept:
            own = (files[kind], *(root / "annotations").glob("*"))
            refuse_input(out / "annotations" / f"{kind}_{name}2017.json", *own)
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for name in ("train", "val"):
        for kind, content in kept.items():
            write_json(out / "annotations" / f"{kind}_{name}2017.json", content)
        for folder, source in folders.items():
            if source.is_dir():
                _link(out / folder.format(name), source)
    return {
        kind: sum(len(annotation.get("segments_info", [annotation])) for annotation in content["annotations"])
        for kind, content in kept.items()
    }


def _keep(content: dict[str, Any], ids: Sequence[int], path: Path) -> dict[str, Any]:
    wanted = set(ids)
    try:
        listed = {image["id"] for image in content["images"]}
        owners = [annotation["image_id"] for annotation in content["annotations"]]
    except (KeyError, TypeError):
        raise ValueError(
            f"{path} is no COCO file: it needs `images` with an id and `annotations` with an image_id"
        ) from None
    missing = wanted - listed
    if missing:
        raise ValueError(f"{path} has no image {min(missing)}: choose ids that it lists")
    return content | {
        "images": [image for image in content["images"] if image["id"] in wanted],
        "annotations": [a for a, owner in zip(content["annotations"], owners) if owner in wanted],
    }


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        raise ValueError(f"{link} is a folder of its own, not a link of an earlier subset: choose another folder")
    os.symlink(target.resolve(), link, target_is_directory=True)


def main(options: argparse.Namespace) -> None:
    """Write the subset, and print how many annotations it holds."""
    counts = write_subset(options.root, options.out, options.split, options.ids)
    kinds = ", ".join(f"{kind}: {count}" for kind, count in counts.items())
    images = len(set(options.ids))
    say(f"{options.out}: {images} image{'s' * (images > 1)}; {kinds}")


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("root", type=Path, metavar="DATA", help="a data set in any format that is recognised")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    parser.add_argument(
        "--split", default="train", choices=["train", "val", "test"], help="part of DATA with the images"
    )
    parser.add_argument("--ids", type=int, nargs="+", required=True, help="image ids")
    return run_tool(parser, main, argv)


if __name__ == "__main__":
    sys.exit(run())
