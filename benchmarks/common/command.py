"""The command line that all rows share, and the contestants that most of them compare."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.machine import describe_machine, has_bfloat16, package_version, usable_cores
from benchmarks.common.results import Row, write_rows
from benchmarks.common.rounds import Contestant
from benchmarks.common.table import markdown_of

HUGGING_FACE, PUBLISHED, PLAIN, BUILT, OPTIMIZED = "Hugging Face", "published", "plain", "as built", "optimized"
QUICK = {"height": 128, "width": 160, "repeats": 1}  # only shows that everything runs


@dataclass(frozen=True)
class Options:
    """How a row is measured.

    Attributes:
        threads: of every contestant.
        rounds: fresh processes of each contestant.
        quick: small images and one round, to see that everything runs.
        published: a folder with the published code.
        amp: measure our own training in these types too.
        compile: measure our own code compiled too.
    """

    device: str = "cpu"
    threads: int = usable_cores()
    rounds: int = 3
    quick: bool = False
    published: Path | None = None
    amp: tuple[str, ...] = ()
    compile: bool = False

    def work(self, **fields: Any) -> dict[str, Any]:
        """Options for a subject; with `quick` its sizes are small. On a GPU it repeats its short work more often."""
        work = {"device": self.device, "threads": self.threads, **fields}
        if self.device != "cpu":
            work |= {"warmup": 10, "repeats": 8 * work.get("repeats", 3)}
        return work | (QUICK if self.quick else {})

    @property
    def turns(self) -> int:
        """Rounds to measure."""
        return 1 if self.quick else self.rounds


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `Options`."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of every contestant (all cores)")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each contestant, in turns")
    parser.add_argument("--quick", action="store_true", help="small images and one round, to see that everything runs")
    parser.add_argument("--published", type=Path, metavar="FOLDER", help="a clone of the published code to measure too")
    parser.add_argument("--amp", nargs="+", default=[], choices=["bf16", "fp16"], help="measure our training so too")
    parser.add_argument("--compile", action="store_true", help="measure our code compiled too")


def options_of(args: argparse.Namespace) -> Options:
    """The options that a command line sets."""
    published = args.published.resolve() if args.published else None
    return Options(args.device, args.threads, args.rounds, args.quick, published, tuple(args.amp), args.compile)


def run_row(description: str, measure: Callable[[Options], Row]) -> int:
    """The command of one row: measure, print its table and, with `--json`, save the measurements."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    add_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements there")
    args = parser.parse_args()
    row = measure(options_of(args))
    row.machine = describe_machine()
    print(markdown_of(row))
    if args.json:
        write_rows(args.json, [row])
    return 0


def detectors(options: Options, *, optimized: bool = False, **fields: Any) -> list[Contestant]:
    """Hugging Face, the published code and our own in its forms, at the same work (fields of `Work`)."""
    work = options.work(**fields)
    found = [
        Contestant(HUGGING_FACE, "benchmarks.subjects.huggingface", work, problem=lacking("transformers", "timm")),
        published(options, **fields),
        Contestant(PLAIN, "benchmarks.subjects.ours", {**work, "form": "plain"}),
        Contestant(BUILT, "benchmarks.subjects.ours", work),
    ]
    if optimized:
        found.append(Contestant(OPTIMIZED, "benchmarks.subjects.ours", {**work, "form": "optimized"}))
    if options.compile:
        compiled = {**work, "compile": True, "warmup": 2}
        found.append(Contestant(f"{BUILT}, compiled", "benchmarks.subjects.ours", compiled))
    for kind in options.amp:
        name = f"{BUILT}, {kind}"
        problem = ""
        if kind == "bf16" and options.device == "cpu" and not has_bfloat16():
            problem = "this processor has no bfloat16, so that it would be emulated"
        found.append(Contestant(name, "benchmarks.subjects.ours", {**work, "amp": kind}, problem=problem))
    return found


def published(options: Options, **fields: Any) -> Contestant:
    """The published code, if `--published` names its folder."""
    problem, folder = "", options.published
    if folder is None:
        problem = "its code is not on this machine: pass --published FOLDER"
    elif not (folder / "models" / "detr.py").is_file():
        problem = "the folder given holds no models/detr.py"
    return Contestant(PUBLISHED, "benchmarks.subjects.published", options.work(**fields), folder or Path(), problem)


def lacking(*packages: str) -> str:
    """Why something that needs these packages cannot be measured; empty if all are installed."""
    missing = [name for name in packages if package_version(name) is None]
    return f"{' and '.join(missing)} not installed: see benchmarks/requirements.txt" if missing else ""


def fail(message: str) -> int:
    """Print an error; returns the exit code."""
    print(f"error: {message}", file=sys.stderr)
    return 1
