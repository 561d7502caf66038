"""Some images of a data set as one of their own: `python -m tools.subset COCO_PATH OUT --split train --ids 9 25`.

OUT gets the published layout, with the same images for training and validation: what a model can learn by heart, it
can be tested on. Image folders and PNG folders are linked, not copied.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from util.errors import one_sentence
from util.files import write_json

KINDS = ("instances", "panoptic")


def write_subset(root: Path, out: Path, split: str, ids: Sequence[int]) -> dict[str, int]:
    """Write the annotations of some images of `root` to `out`, once as train2017 and once as val2017.

    Returns:
        How many annotations, or of panoptic files segments, each file that `root` has kept.

    Raises:
        OSError, ValueError: there is no annotation file of the split, or it lacks one of the images.
    """
    files = {kind: root / "annotations" / f"{kind}_{split}2017.json" for kind in KINDS}
    found = {kind: json.loads(path.read_text(encoding="utf-8")) for kind, path in files.items() if path.is_file()}
    if not found:
        raise ValueError(f"{root} has neither {files['instances']} nor {files['panoptic']}: name another folder")
    kept = {kind: _keep(content, ids, files[kind]) for kind, content in found.items()}
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for name in ("train", "val"):
        for kind, content in kept.items():
            write_json(out / "annotations" / f"{kind}_{name}2017.json", content)
        for folder in ("{}2017", "panoptic_{}2017"):
            source = root / folder.format(split)
            if source.is_dir():
                _link(out / folder.format(name), source)
    return {
        kind: sum(len(annotation.get("segments_info", [annotation])) for annotation in content["annotations"])
        for kind, content in kept.items()
    }


def _keep(content: dict[str, Any], ids: Sequence[int], path: Path) -> dict[str, Any]:
    wanted = set(ids)
    missing = wanted - {image["id"] for image in content["images"]}
    if missing:
        raise ValueError(f"{path} has no image {min(missing)}: name images that it lists")
    return content | {
        "images": [image for image in content["images"] if image["id"] in wanted],
        "annotations": [a for a in content["annotations"] if a["image_id"] in wanted],
    }


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        link.unlink()
    os.symlink(target.resolve(), link, target_is_directory=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="COCO_PATH", help="data in the published layout")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--split", default="train", choices=["train", "val"], help="the images' split in COCO_PATH")
    parser.add_argument("--ids", type=int, nargs="+", required=True, help="ids of the images")
    args = parser.parse_args(argv)
    try:
        counts = write_subset(args.root, args.out, args.split, args.ids)
    except (OSError, ValueError) as error:
        print(f"error: {one_sentence(error)}", file=sys.stderr)
        return 1
    print(f"{args.out}: {len(set(args.ids))} images; " + ", ".join(f"{kind}: {n}" for kind, n in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
