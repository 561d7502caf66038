"""The command line of `predict.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def get_args_parser() -> argparse.ArgumentParser:
    """The flags; `parse` reads a command line by them."""
    parser = argparse.ArgumentParser(description="Find objects in images, or with --fps measure how fast.")
    parser.add_argument("checkpoint", help="a checkpoint's file or http(s) address")
    parser.add_argument("inputs", nargs="*", metavar="IMAGES", help="files, folders, quoted patterns, or - for stdin")
    parser.add_argument("--out", type=Path, help="folder for pictures/, detections.json and panoptic maps")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="least score (default 0.5); the one of best F1 stands in a training's eval/f1.json",
    )
    parser.add_argument(
        "--panoptic_threshold",
        type=float,
        help="of a panoptic model: score that a mask must exceed to be part of the map (default 0.85)",
    )
    parser.add_argument("--top_k", type=int, help="keep so many of the best in each image")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="keep these classes alone")
    parser.add_argument("--batch_size", type=int, default=1, help="images at once; the results are the same")
    parser.add_argument("--device", default="auto", help="auto (cuda, else mps, else cpu), cpu, cuda, cuda:N, mps")
    parser.add_argument("--count", action="store_true", help="list how many of each class, not every object")
    parser.add_argument("--save_crops", action="store_true", help="write the inside of each box to crops/CLASS/")
    parser.add_argument("--attention", action="store_true", help="draw where the model looked, to attention/")
    parser.add_argument(
        "--attention_points",
        nargs="+",
        type=_point,
        default=(),
        metavar="X,Y",
        help="pixels whose attention is drawn, in place of the middles of the best boxes",
    )
    parser.add_argument("--no_pictures", action="store_true", help="draw nothing")
    parser.add_argument("--resume", action="store_true", help="go on with a job in --out that was interrupted")
    parser.add_argument("--fps", action="store_true", help="measure the network's speed; takes no IMAGES")
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="with --fps: pixels that the network sees (default: what it sees of a 4:3 photo)",
    )
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The settings; the command ends where what it needs is not there."""
    parser = get_args_parser()
    options = parser.parse_intermixed_args(argv)  # flags may stand in front of IMAGES
    if options.fps and (options.inputs or options.out):
        parser.error("--fps measures on random colours: leave IMAGES and --out away")
    if not options.fps and not (options.inputs and options.out):
        parser.error("IMAGES and --out FOLDER are needed, or --fps to measure the speed")
    if options.size and not options.fps:
        parser.error("--size is for --fps; images keep the size that the checkpoint was trained for")
    return options


def _point(text: str) -> tuple[float, float]:
    x, y = text.split(",")
    return float(x), float(y)
