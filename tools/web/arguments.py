"""Look at a detector in the browser: drop or paste a picture, or use the camera.

python -m tools.web RUN/checkpoint_best.pth

The page is served on this machine only. Pictures stay in memory while they are worked on; nothing is stored.
Needs starlette and uvicorn: pip install "starlette>=0.41" "uvicorn>=0.32"
"""
# Nothing here imports torch, so that --help is fast.

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from importlib.util import find_spec

from util.text import print_any_script, printable

PACKAGES = '"starlette>=0.41" "uvicorn>=0.32"'
MAX_PIXELS = 25_000_000  # a panoptic map of this size takes half a minute of one core, and 2 GB
MAX_MB = 4096


def get_args_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "python -m tools.web",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", help="checkpoint: a file or an http(s) address")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default 127.0.0.1: this machine only); there is no password and no encryption",
    )
    parser.add_argument("--port", type=_port, default=8000, help="port (default 8000); 0: any free one")
    parser.add_argument(
        "--trusted_hosts",
        nargs="+",
        default=[],
        metavar="NAME",
        help="other names of this machine that browsers may use in the address, such as detector.lan",
    )
    parser.add_argument("--max_mb", type=_megabytes, default=20.0, help="largest picture file in MB (default 20)")
    parser.add_argument(
        "--max_pixels",
        type=_positive,
        default=MAX_PIXELS,
        help=f"pictures with more pixels are refused before they are decoded (default {MAX_PIXELS})",
    )
    parser.add_argument("--queue", type=_not_negative, default=4, help="pictures that may wait their turn (default 4)")
    parser.add_argument(
        "--threshold", type=_score, default=0.5, help="where the page's score slider starts (default 0.5)"
    )
    parser.add_argument(
        "--panoptic_threshold",
        type=_score,
        help="panoptic models: a mask enters the map if its score exceeds this (default 0.85)",
    )
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; exits with code 2 if it is wrong."""
    print_any_script()
    return get_args_parser().parse_args(argv)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _number(text: str, kind: type, low: float, high: float, what: str) -> int | float:
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not low <= number <= high:
        raise argparse.ArgumentTypeError(f"must be {what}, got {printable(text, 60)!r}")
    return number


def _port(text: str) -> int:
    return _number(text, int, 0, 65535, "a port from 0 to 65535")


def _megabytes(text: str) -> float:
    return _number(text, float, 0.001, MAX_MB, f"a size in MB from 0.001 to {MAX_MB}")


def _positive(text: str) -> int:
    return _number(text, int, 1, 2**40, "a whole number of at least 1")


def _not_negative(text: str) -> int:
    return _number(text, int, 0, 1000, "a whole number from 0 to 1000")


def _score(text: str) -> float:
    return _number(text, float, 0, 1, "a score from 0 to 1")


def missing_packages() -> str:
    """One sentence if a package that the page needs is not installed."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    return f"error: {' and '.join(missing)} cannot be imported: pip install {PACKAGES}" if missing else ""
