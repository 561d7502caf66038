"""The flags of `predict.py` for videos."""

from __future__ import annotations

import argparse
import math

VIDEO_FLAGS = ("every", "start", "end", "retries", "show", "track", "line")


def add_video_flags(parser: argparse.ArgumentParser) -> None:
    """Add them; each is None or False unless given."""
    group = parser.add_argument_group(
        "videos", "from files, folders, http(s) and rtsp addresses, and webcams by number"
    )
    group.add_argument("--every", type=_count, metavar="N", help="use every N-th frame only (default 1)")
    group.add_argument("--start", type=seconds, metavar="TIME", help="start at this time: seconds, or [H:]M:S")
    group.add_argument("--end", type=seconds, metavar="TIME", help="end at this time")
    group.add_argument(
        "--retries", type=_not_negative, metavar="N", help="how often to reopen a broken stream (default 3)"
    )
    group.add_argument("--show", action="store_true", help="show the frames in a window, too")
    group.add_argument("--track", action="store_true", help="give each object an id, and count objects by class")
    group.add_argument(
        "--line",
        nargs=4,
        type=float,
        metavar=("X0", "Y0", "X1", "Y1"),
        help="with --track: count the objects that cross this line",
    )


def seconds(text: str) -> float:
    """`90`, `1:30` or `0:01:30.5` → seconds."""
    try:
        parts = [float(part) for part in text.split(":")]
        whole = sum(part * 60**power for power, part in enumerate(reversed(parts)))
        if len(parts) > 3 or not math.isfinite(whole) or min(parts) < 0:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError("must be a time such as 90, 1:30 or 0:01:30.5") from None
    return whole


def _count(text: str) -> int:
    return _at_least(1, text)


def _not_negative(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    try:
        if (number := int(text)) >= least:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
