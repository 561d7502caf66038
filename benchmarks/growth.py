"""How seconds and memory grow with the size of the work: `python -m benchmarks.growth --out docs`.

Each point is a fresh process. `--axis` measures some axes again and keeps the others. Writes `growth.json` with all
measurements, `images/growth.png` with a plot for each axis, and the table between two markers of `benchmarks.md`.
Exponents are those of a power law through the last three points; those of memory count what exceeds the imports.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.command import Options, add_options, options_of
from benchmarks.common.growth_plot import draw_growth
from benchmarks.common.machine import describe_machine
from benchmarks.common.rounds import REPOSITORY, environment, progress, result_in, run_fresh
from benchmarks.common.table import replace_part, seconds_text

FITTED = 3  # points
TOLERANCE = 0.15  # by which an exponent may exceed what the algorithm asks
BEGIN, END = "<!-- growth: begin -->", "<!-- growth: end -->"
OURS, IMAGES = "benchmarks.subjects.ours", "benchmarks.subjects.images"
TINY = {"backbone": "resnet18", "height": 224, "width": 320}
SMALLEST = {"hidden_dim": 128, "dim_feedforward": 512, "enc_layers": 2}
NOTHING = {  # next to no work, to see what the imports of a subject take
    OURS: {"task": "criterion", "backbone": "tiny", "queries": 10, "boxes": 1, "flags": SMALLEST, "repeats": 1},
    IMAGES: {"task": "evaluation", "batch": 1, "boxes": 1, "repeats": 1},
}


@dataclass(frozen=True)
class Curve:
    """Seconds and memory of one kind of work along an axis.

    Attributes:
        axis: image side, queries, boxes, batch, images or processes.
        name: of the work.
        points: the values along the axis.
        asks: the exponent of time that the algorithm asks for at large values.
        why: the reason for it.
        subject: the module that does the work.
        work: options of it.
        along: which options have the value of the axis.
    """

    axis: str
    name: str
    points: Sequence[int]
    asks: float
    why: str
    subject: str
    work: dict[str, Any]
    along: Sequence[str]


CURVES = (
    Curve(
        "image side",
        "inference, ResNet-50",
        (256, 384, 512, 640, 800),
        2.2,
        "convolutions grow with the area; the encoder's attention with its square, but it is a small part",
        OURS,
        {"task": "inference", "repeats": 3},
        ("height", "width"),
    ),
    Curve(
        "image side",
        "training step, ResNet-50, 1 image",
        (256, 384, 512, 640, 800),
        2.2,
        "as inference",
        OURS,
        {"task": "training", "repeats": 1},
        ("height", "width"),
    ),
    Curve(
        "queries",
        "training step, ResNet-18, 224 × 320",
        (100, 200, 400, 600, 900),
        1.5,
        "linear layers grow with the queries, self-attention with their square; the backbone does not",
        OURS,
        {"task": "training", "repeats": 3, **TINY},
        ("queries",),
    ),
    Curve(
        "queries",
        "criterion, 4 × 20 boxes",
        (100, 200, 400, 600, 900),
        1.0,
        "costs and losses have an entry for each query",
        OURS,
        {"task": "criterion", "backbone": "resnet18", "batch": 4, "boxes": 20, "repeats": 15},
        ("queries",),
    ),
    Curve(
        "boxes of an image",
        "criterion, 4 images, 300 queries",
        (1, 3, 10, 30, 100, 300),
        2.0,
        "costs are linear in the boxes; the assignment of n boxes to Q queries takes up to n² · Q steps",
        OURS,
        {"task": "criterion", "backbone": "resnet18", "batch": 4, "queries": 300, "repeats": 7},
        ("boxes",),
    ),
    Curve(
        "batch",
        "training step, ResNet-18, 224 × 320",
        (1, 2, 4, 8, 16),
        1.0,
        "every image is the same work",
        OURS,
        {"task": "training", "repeats": 2, **TINY},
        ("batch",),
    ),
    Curve(
        "images of a data set",
        "building the data set, 8 boxes an image",
        (1000, 5000, 20_000, 60_000, 120_000),
        1.0,
        "every annotation is read and checked once",
        IMAGES,
        {"task": "index", "boxes": 8, "warmup": 0, "repeats": 1},
        ("batch",),
    ),
    Curve(
        "images of a data set",
        "pycocotools reading the same file",
        (1000, 5000, 20_000, 60_000, 120_000),
        1.0,
        "every annotation is read once",
        IMAGES,
        {"task": "peer_index", "boxes": 8, "warmup": 0, "repeats": 1},
        ("batch",),
    ),
    Curve(
        "images of a data set",
        "evaluation, 20 detections an image",
        (1000, 5000, 20_000, 60_000, 120_000),
        1.0,
        "images are matched one by one; only the sort by score is n · log n",
        IMAGES,
        {"task": "evaluation", "boxes": 20, "warmup": 0, "repeats": 1},
        ("batch",),
    ),
    Curve(
        "processes",
        "training step of a small model, 4 images a process, one thread each (gloo)",
        (1, 2),
        0.0,
        "with a core for each process, only the exchange of gradients is added",
        OURS,
        {"task": "training", "backbone": "tiny", "height": 128, "width": 128, "batch": 4, "repeats": 8}
        | {"warmup": 3, "threads": 1, "flags": SMALLEST},
        (),
    ),
)
AXES = tuple(dict.fromkeys(curve.axis for curve in CURVES))
SHORT = {name: name.split()[-1] if name.startswith("image ") else name.split()[0] for name in AXES}  # of `--axis`


def measured(curve: Curve, options: Options, base: int) -> dict[str, Any]:
    """The points of a curve, {"x", "seconds", "bytes", "problem"} each; `base` is what the imports take in bytes."""
    points = []
    for value in curve.points[:2] if options.quick else curve.points:
        work = {"device": options.device, "threads": options.threads, **curve.work}
        work |= dict.fromkeys(curve.along, value)
        point: dict[str, Any] = {"x": value, "seconds": None, "bytes": None, "problem": ""}
        try:
            result = run_point(curve, work, value)
            point |= {"seconds": statistics.median(result["seconds"]), "bytes": result["peak"]}
        except RuntimeError as error:
            point["problem"] = str(error)
        shown = point["problem"] or f"{seconds_text(point['seconds'])}, {point['bytes'] / 1e9:.2f} GB"
        progress(f"  {curve.name}, {value}: {shown}")
        points.append(point)
    about = {"axis": curve.axis, "name": curve.name, "asks": curve.asks, "why": curve.why}
    return {**about, "base": base, "points": points}


def run_point(curve: Curve, work: dict[str, Any], value: int) -> dict[str, Any]:
    """The result of a subject for one point."""
    if curve.axis == "processes":
        return run_together(work, value)
    if "index" not in work["task"]:
        return run_subject(curve.subject, work)
    folder = Path(tempfile.gettempdir(), f"growth-{os.getpid()}-{value}")  # kept for the next curve
    if not folder.exists():
        run_subject(IMAGES, {**work, "task": "draw", "path": str(folder)})
    return run_subject(curve.subject, {**work, "path": str(folder)})


def run_subject(subject: str, work: dict[str, Any]) -> dict[str, Any]:
    """The result of one fresh process."""
    return run_fresh([sys.executable, "-m", subject, json.dumps(work)], REPOSITORY, work.get("threads"), 600)


def run_together(work: dict[str, Any], processes: int) -> dict[str, Any]:
    """The result of the first of several processes that train together on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = environment(REPOSITORY, work["threads"]) | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    variables |= {"WORLD_SIZE": str(processes)}
    command = [sys.executable, "-m", OURS, json.dumps(work)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
    running = []
    for rank in range(processes):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        own = {name: v for name, v in variables.items() if processes > 1 or name != "WORLD_SIZE"}
        running.append(subprocess.Popen(command, env=own | place, **pipes))
    outputs = [process.communicate(timeout=600) for process in running]
    if running[0].returncode:
        raise RuntimeError((outputs[0][1].strip().splitlines() or ["no message"])[-1][:300])
    return result_in(outputs[0][0])


def exponent(points: Sequence[dict[str, Any]], what: str, base: float = 0) -> float | None:
    """The slope of log(value − base) over log(x) through the last points, by least squares."""
    usable = [(p["x"], p[what] - base) for p in points if p[what] is not None and p[what] - base > 0][-FITTED:]
    if len(usable) < 2:
        return None
    xs, ys = [math.log(x) for x, _ in usable], [math.log(y) for _, y in usable]
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys)) / spread


def table_of(curves: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines of Markdown: a table, and a sentence for each curve that grows faster than its algorithm asks."""
    yield "| along | work | from | to | time grows with | the algorithm asks | memory grows with |"
    yield "|---|---|---|---|---|---|---|"
    worse = []
    for curve in curves:
        done = [point for point in curve["points"] if point["seconds"] is not None]
        if not done:
            yield f"| {curve['axis']} | {curve['name']} | not measured: {curve['points'][0]['problem']} | | | | |"
            continue
        time_power, memory_power = exponent(done, "seconds"), exponent(done, "bytes", curve["base"])
        ends = [f"{p['x']:,}: {seconds_text(p['seconds'])}, {p['bytes'] / 1e9:.2f} GB" for p in (done[0], done[-1])]
        powers = [f"{power:.2f}" if power is not None else "" for power in (time_power, memory_power)]
        cells = [curve["axis"], curve["name"], *ends, powers[0], f"{curve['asks']:g}: {curve['why']}", powers[1]]
        yield f"| {' | '.join(cells)} |"
        if time_power is not None and time_power > curve["asks"] + TOLERANCE:
            worse.append((curve, time_power))
    yield ""
    for curve, power in worse:
        yield (
            f"- Worse than the algorithm asks ({curve['axis']}): the time of “{curve['name']}” grows with the power "
            f"{power:.2f}, not {curve['asks']:g}."
        )
    if not worse:
        yield "No curve grows faster than its algorithm asks."


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--axis", nargs="+", choices=sorted(SHORT.values()), help="default: all")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--rebuild", action="store_true", help="measure nothing; draw what growth.json holds")
    args = parser.parse_args()
    raw, options, start = args.out / "growth.json", options_of(args), time.perf_counter()
    content = json.loads(raw.read_text(encoding="utf-8")) if raw.exists() else {"curves": []}
    kept = {(curve["axis"], curve["name"]): curve for curve in content["curves"]}
    wanted = [] if args.rebuild else [c for c in CURVES if not args.axis or SHORT[c.axis] in args.axis]
    bases: dict[str, int] = {}
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        for subject, work in NOTHING.items() if wanted else ():
            bases[subject] = run_subject(subject, {**work, "threads": options.threads})["peak"]
        for curve in wanted:
            progress(f"{curve.axis}: {curve.name} ({time.perf_counter() - start:.0f} s)")
            kept[curve.axis, curve.name] = measured(curve, options, bases[curve.subject])
            curves = [kept[c.axis, c.name] for c in CURVES if (c.axis, c.name) in kept]
            content = {"machine": describe_machine(), "curves": curves}
            raw.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    finally:
        for folder in Path(tempfile.gettempdir()).glob(f"growth-{os.getpid()}-*"):
            shutil.rmtree(folder)
    draw_growth(content["curves"], exponent, args.out / "images" / "growth.png")
    lines = "\n".join(table_of(content["curves"]))
    replace_part(args.out / "benchmarks.md", BEGIN, END, f"![Growth](images/growth.png)\n\n{lines}")
    progress(f"wrote {raw}, growth.png and benchmarks.md ({time.perf_counter() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
