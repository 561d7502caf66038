"""Write a data set of any format as COCO, or as YOLO or Pascal VOC: `python -m tools.to_coco FOLDER OUT`.

FOLDER is what --data of main.py takes: COCO, an export of an annotation tool, Pascal VOC or YOLO. OUT gets all of its
parts, with the images copied (--copy) or linked (--link); it is complete or not there. Boxes, classes and sizes are the
same after a conversion to another format and back.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from datasets.formats.part import FoundData
from datasets.formats.voc.options import VocOptions
from tools.command import run_tool, say, tool_parser
from tools.converting.coco import write_coco
from tools.converting.content import read_content
from tools.converting.output import new_folder
from tools.converting.voc import write_voc
from tools.converting.yolo import LABELS, write_yolo

FORMATS = ("coco", "yolo", "voc")


def convert(
    folder: Path,
    out: Path,
    to: str = "coco",
    *,
    link: bool = False,
    labels: str = "auto",
    voc: VocOptions | None = None,
) -> tuple[FoundData, list[str]]:
    """Write the data set in `folder` to `out`.

    Args:
        folder: of any format that `find_data` recognises.
        out: a new folder.
        to: "coco", "yolo" or "voc".
        link: link the images instead of copying them.
        labels: of YOLO, see `write_yolo`.
        voc: how Pascal VOC is read.

    Returns:
        What was read, and what the format of `out` cannot hold, one sentence each.

    Raises:
        OSError, ValueError: `folder` cannot be read, `out` exists or cannot be written, or the format cannot hold a
            name.
    """
    found, parts = read_content(folder, voc or VocOptions())
    write = {"coco": write_coco, "yolo": partial(write_yolo, labels=labels), "voc": write_voc}[to]
    with new_folder(out) as temporary:
        notes = write(temporary, parts, link=link)
    return found, notes


def main(options: argparse.Namespace) -> None:
    """Convert, and print what was read, what was written and what could not be."""
    voc = VocOptions(options.voc_difficult, options.voc_origin)
    found, notes = convert(options.folder, options.out, options.to, link=options.link, labels=options.labels, voc=voc)
    say(found.sentence())
    for name, fault in found.unusable.items():
        say(f"the {name} part is left out, because it cannot be used: {fault}")
    for note in notes:
        say(note)
    say(f"wrote {options.out} as {dict(coco='COCO', yolo='YOLO', voc='Pascal VOC')[options.to]}")


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the data set to read")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    parser.add_argument("--to", default="coco", choices=FORMATS, help="format to write (default coco)")
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--copy", dest="link", action="store_false", help="copy the images (the default)")
    images.add_argument("--link", dest="link", action="store_true", help="make symbolic links to the images")
    parser.set_defaults(link=False)
    parser.add_argument(
        "--labels",
        default="auto",
        choices=LABELS,
        help="of --to yolo: boxes, polygons, or (auto, the default) polygons if nothing is lost by that",
    )
    parser.add_argument(
        "--voc_difficult",
        default="ignore",
        choices=("ignore", "keep", "drop"),
        help="objects that Pascal VOC marks difficult: crowd regions, objects as any other, or none",
    )
    parser.add_argument("--voc_origin", type=int, default=1, choices=(1, 0), help="number of VOC's first pixel")
    return run_tool(parser, main, argv)


if __name__ == "__main__":
    sys.exit(run())
