"""A training step beside other work, for several ways of waiting: `python -m benchmarks.beside_other_work`.

The step is the demo's: 16 pictures of 96 pixels from the built-in shapes, loaded, moved through the network and learned
from; or ResNet-50's on 2 random images of 240 × 320. Each way of waiting (a policy) has a process of its own. They take
turns: while one is measured, the others sleep. Beside it run none, one or two processes that never pause. Times wander,
so that one run says little: each run adds lines to FILE (`--results`), and the table shows the medians of all of them.

A policy is a name, or settings joined by commas: `default`, `passive`, `spin=3000` (GOMP_SPINCOUNT), `threads=1`,
`spin=3000,threads=1`, `ours` (what our commands do).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from util.start_up.threads import wait_briefly

REPOSITORY = Path(__file__).resolve().parents[1]
POLICIES = ("default", "passive", "ours")
OPENMP = ("OMP_", "GOMP_", "KMP_", "MKL_")
FOREVER = "while True: pass"


def environment_of(policy: str) -> dict[str, str]:
    """The variables with which the process of a policy starts."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(OPENMP)}
    for part in policy.split(","):
        name, _, value = part.partition("=")
        if name == "passive":
            variables["OMP_WAIT_POLICY"] = "PASSIVE"
        elif name == "spin":
            variables["GOMP_SPINCOUNT"] = value
        elif name == "threads":
            variables["OMP_NUM_THREADS"] = value
        elif name == "ours":
            wait_briefly(variables)
        elif name != "default":
            raise ValueError(f"unknown policy {policy!r}")
    return variables


def measure(options: argparse.Namespace) -> None:
    """One run: each policy in each condition, in turns."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.data or temporary
        command = [sys.executable, "-m", "benchmarks.subjects.timed_steps"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
        if not os.path.exists(os.path.join(folder, "annotations")):
            subprocess.run([*command, "draw", str(folder)], cwd=REPOSITORY, check=True)
        command += [options.model, str(folder), str(options.seconds)]
        subjects = {
            policy: subprocess.Popen(command, env=environment_of(policy), **pipes) for policy in options.policies
        }
        try:
            for subject in subjects.values():
                subject.stdout.readline()  # it is ready
            for _ in range(options.turns):
                for workers, busy in product(options.workers, options.busy):
                    with busy_processes(busy):
                        for policy, subject in subjects.items():
                            seconds = ask(subject, {"workers": workers})
                            case = {"model": options.model, "policy": policy, "workers": workers, "busy": busy}
                            with options.results.open("a", encoding="utf-8") as file:
                                file.write(json.dumps({**case, "seconds": seconds}) + "\n")
        finally:
            for subject in subjects.values():
                subject.stdin.close()
                subject.wait()


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """A context in which `count` processes compute without a pause."""
    others = [subprocess.Popen([sys.executable, "-c", FOREVER]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def ask(subject: subprocess.Popen[str], question: dict[str, Any]) -> list[float]:
    """Have a waiting process measure; returns the seconds of its steps."""
    subject.stdin.write(json.dumps(question) + "\n")
    subject.stdin.flush()
    return json.loads(subject.stdout.readline())


def table(results: Path) -> str:
    """A Markdown table of medians: for each policy and number of workers, alone and beside one and two processes."""
    medians: dict[tuple[str, int, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in results.read_text(encoding="utf-8").splitlines():
        result = json.loads(line)
        medians[result["model"], result["workers"], result["policy"]][result["busy"]].append(
            statistics.median(result["seconds"])
        )
    columns = sorted({busy for row in medians.values() for busy in row})
    titles = ["alone" if busy == 0 else f"beside {busy} busy" for busy in columns]
    lines = [f"| model | workers | policy | {' | '.join(titles)} | times |", "|" + "---|" * (len(columns) + 4)]
    for (model, workers, policy), row in sorted(medians.items()):
        cells = []
        for busy in columns:
            runs = row.get(busy, [])
            spread = f" ({min(runs):.3f}–{max(runs):.3f})" if len(runs) > 1 else ""
            cells.append(f"{statistics.median(runs):.3f}{spread}" if runs else "–")
        lines.append(f"| {model} | {workers} | {policy} | {' | '.join(cells)} | {max(map(len, row.values()))} |")
    return "\n".join(lines)


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["demo", "resnet50"], default="demo", help="resnet50 has no workers")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), metavar="POLICY")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2], help="loader workers (default 0 2)")
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 1, 2], help="processes beside it (default 0 1 2)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement, beside the first steps")
    parser.add_argument("--turns", type=int, default=1, help="measurements of each policy and condition in a run")
    parser.add_argument("--runs", type=int, default=1, help="each with fresh processes; 0 only prints the table")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="draws the pictures there, once; else anew each run"
    )
    parser.add_argument("--results", type=Path, default=Path("beside_other_work.jsonl"), metavar="FILE")
    options = parser.parse_args(argv)
    for _ in range(options.runs):
        start = time.monotonic()
        measure(options)
        print(f"one run took {time.monotonic() - start:.0f} s", file=sys.stderr)
    print(table(options.results))
    return 0


if __name__ == "__main__":
    sys.exit(run())
