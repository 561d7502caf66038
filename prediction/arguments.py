"""The command line of `predict.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from prediction.video.flags import VIDEO_FLAGS, add_video_flags
from prediction.video.sources import sort_inputs
from util.settings import BEST, MAX_PIXELS
from util.text import print_any_script, printable


def get_args_parser() -> argparse.ArgumentParser:
    """The flags of `predict.py`."""
    parser = argparse.ArgumentParser(description="Detect objects in images and videos, or measure speed with --fps.")
    parser.add_argument("checkpoint", help="checkpoint: a file or an http(s) address")
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="IMAGES",
        help="files, folders, quoted patterns, - for stdin; also videos, addresses and webcams by number",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="output folder for pictures/, detections.json, results.json and panoptic maps; the results of an earlier "
        "job in it are replaced, other files stay",
    )
    parser.add_argument(
        "--ann",
        type=Path,
        metavar="FILE",
        help="COCO annotation file: only its images, with their ids; without IMAGES, they are searched around the file",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="data set in any format that main.py --data reads: its images, with their ids",
    )
    parser.add_argument(
        "--part",
        choices=("train", "val", "test"),
        help="with --data: the part (default: val where there is one, else the only one)",
    )
    parser.add_argument(
        "--threshold",
        type=threshold_value,
        default=0.5,
        help="minimum score (default 0.5), or best: for each class the score with the best F1 on the validation set, "
        "from the checkpoint; eval/f1.json of the training has the one for all classes",
    )
    parser.add_argument(
        "--panoptic_threshold",
        type=float,
        help="panoptic models: a mask enters the map if its score exceeds this (default 0.85)",
    )
    parser.add_argument("--top_k", type=int, help="keep at most this many detections per image, the best ones")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="keep only these classes")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=1,
        help="images per forward pass (default 1)",
    )
    parser.add_argument(
        "--slice",
        type=_at_least_one,
        metavar="PIXELS",
        help="also look at tiles of this size, for small objects in large pictures; detections of one object in "
        "several tiles are merged, by class",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.2,
        metavar="FRACTION",
        help="with --slice: least overlap of neighbouring tiles, as a fraction of their side (default 0.2)",
    )
    parser.add_argument(
        "--max_pixels",
        type=_at_least_one,
        default=MAX_PIXELS,
        help=f"refuse image files with more pixels than this (default {MAX_PIXELS})",
    )
    parser.add_argument("--device", default="auto", help="auto (cuda, else mps, else cpu), cpu, cuda, cuda:N, mps")
    parser.add_argument("--count", action="store_true", help="print counts per class instead of every object")
    parser.add_argument("--save_crops", action="store_true", help="write the content of each box to crops/CLASS/")
    parser.add_argument("--attention", action="store_true", help="draw where the model looked, in attention/")
    parser.add_argument(
        "--attention_points",
        nargs="+",
        type=_point,
        default=(),
        metavar="X,Y",
        help="with --attention: pixels whose attention is drawn (default: the centres of the best boxes)",
    )
    parser.add_argument("--no_pictures", action="store_true", help="write no pictures")
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted job in --out, and repeat what has changed"
    )
    parser.add_argument(
        "--fps", action="store_true", help="measure the network's speed, without IMAGES; with videos: draw the speed"
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="with --fps: input size in pixels (default: that of a resized 4:3 photo)",
    )
    add_video_flags(parser)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; exits with code 2 if flags are missing or do not go together."""
    print_any_script()
    parser = get_args_parser()
    options = parser.parse_intermixed_args(argv)  # flags may come before IMAGES
    sorted_inputs = sort_inputs(options.inputs)
    has_videos = bool(sorted_inputs.videos or sorted_inputs.web) and not (options.ann or options.data)
    if not has_videos and any(getattr(options, name) not in (None, False) for name in VIDEO_FLAGS):
        parser.error(f"--{', --'.join(VIDEO_FLAGS)} are for videos, and none is named")
    if options.start is not None and options.end is not None and options.start > options.end:
        parser.error(f"--start {options.start:g} s is after --end {options.end:g} s")
    if options.line and not options.track:
        parser.error("--line needs --track")
    if options.fps and has_videos and options.size:
        parser.error("--size measures the speed of the network: omit it with videos")
    if options.fps and not has_videos and (options.inputs or options.out or options.ann or options.data):
        parser.error("--fps runs on random images: omit IMAGES and --out, and --ann and --data")
    if options.data and (options.inputs or options.ann):
        parser.error("--data names the images: omit IMAGES and --ann")
    if options.part and not options.data:
        parser.error("--part names a part of --data: pass --data too")
    options.videos = has_videos
    if (has_videos or not options.fps) and not ((options.inputs or options.ann or options.data) and options.out):
        parser.error("IMAGES and --out FOLDER are required, or --fps to measure the speed")
    if options.slice and options.attention:
        parser.error("--attention shows one look at the whole picture: omit --slice")
    if not 0 <= options.overlap <= 0.9:
        parser.error(f"--overlap is a fraction of a tile's side from 0 to 0.9, got {options.overlap:g}")
    if options.size and not options.fps:
        parser.error("--size needs --fps; images are resized as the checkpoint was trained")
    return options


def threshold_value(text: str) -> float | str:
    """A threshold on the command line: a number, or `best`."""
    try:
        return BEST if text == BEST else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a score such as 0.5, or {BEST}, got {printable(text, 60)!r}"
        ) from None


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _point(text: str) -> tuple[float, float]:
    x, y = text.split(",")
    return float(x), float(y)
