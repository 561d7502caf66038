"""Feed damaged and hostile files of every kind to their readers; these may raise only their own errors.

    python -m tools.reliability.fuzz --cases 10000 --seed 0 --out FOLDER [--kinds annotations images]

A case depends only on the seed, its number and the kinds of files, except for memory addresses in checkpoints of the
old format. It passes if its file is read, or rejected with an error of an expected type that this repository's code
raised. Everything else is a finding: an error of another type, from other code or too long to read; printed text that
steers the terminal or pretends to be a line of ours; too much computing, waiting, memory or output; a process that
dies. The files and tracebacks of findings are kept in FOLDER.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from tools.command import run_tool, tool_parser
from tools.reliability.fuzzing.oracle import Output, limit_addresses, limited, outcome_of
from tools.reliability.fuzzing.targets import DOWNLOADS, TARGETS, Target
from util.logging import get_logger

WAITS = 5  # times the limit of computing that a case may take by the clock: other work shares the processor


@dataclass
class Report:
    """The outcomes of a run: the count of each outcome per target, and the findings as (case, what, traceback)."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[tuple[int, str, str]] = field(default_factory=list)

    def table(self) -> str:
        """One line per target and outcome."""
        total = sum(self.counts.values())
        width = max((len(outcome) for _, outcome in self.counts), default=0)
        lines = [f"{name:<12} {what:<{width}} {n:>7,}" for (name, what), n in sorted(self.counts.items())]
        findings = f"{len(self.findings)} finding{'s' * (len(self.findings) != 1)}"
        return "\n".join([*lines, f"{total:,} cases, {findings}"])


def fuzz(
    cases: int, seed: int, out: Path | None = None, targets: Sequence[Target] = TARGETS, time_limit: float = 20.0
) -> Report:
    """Run cases 0..`cases` - 1, with the targets in turn.

    Args:
        out: folder for files and tracebacks of findings; None keeps none.
        time_limit: seconds that a case may compute.
    """
    report = Report()
    start = 0
    with tempfile.TemporaryDirectory() as folder:
        while start < cases:
            start = _run_worker(start, cases, seed, targets, time_limit, Path(folder), report)
        for case, what, trace in report.findings if out is not None else ():
            out.mkdir(parents=True, exist_ok=True)
            target = targets[case % len(targets)]
            file = f"{case}{target.suffix}"
            (out / file).write_bytes(content_of(case, seed, target))
            (out / f"{case}.txt").write_text(f"case {case} of seed {seed}, {target.name}: {what}\n{trace}")
    return report


def content_of(case: int, seed: int, target: Target) -> bytes:
    """The damaged file of a case."""
    return target.make(random.Random(f"{seed}:{case}"))


def _run_worker(
    start: int, cases: int, seed: int, targets: Sequence[Target], time_limit: float, folder: Path, report: Report
) -> int:
    """Run cases from `start` in a separate process until one hangs or kills it; returns the next case's number."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    ours, theirs = context.Pipe(duplex=False)
    worker = context.Process(target=_work, args=(theirs, start, cases, seed, targets, time_limit, folder), daemon=True)
    worker.start()
    theirs.close()
    case = start
    try:
        while case < cases:
            name = targets[case % len(targets)].name
            details = ""
            if not ours.poll(WAITS * time_limit):
                what = f"finding: no answer after waiting {WAITS * time_limit:g} s"
            else:
                try:
                    what, details = ours.recv()
                except EOFError:
                    worker.join()
                    what = f"finding: the process died ({worker.exitcode})"
                    if worker.exitcode == -getattr(signal, "SIGPROF", 0):
                        what = f"finding: no answer after computing {time_limit:g} s"
            report.counts[name, what] += 1
            if what.startswith("finding"):
                report.findings.append((case, what.removeprefix("finding: "), details))
            case += 1
            if what.startswith("finding"):
                break  # a new process: what the case left behind must not reach the others
    finally:
        worker.kill()
        worker.join()
        ours.close()
    return case


def _work(
    pipe: Connection, start: int, cases: int, seed: int, targets: Sequence[Target], time_limit: float, folder: Path
) -> None:
    torch.set_num_threads(1)
    limit_addresses()
    output = Output(folder / "output.txt")
    warnings.simplefilter("default")
    get_logger()
    for case in range(start, cases):
        target = targets[case % len(targets)]
        path = folder / f"{case}{target.suffix}"
        path.write_bytes(content_of(case, seed, target))
        with limited(time_limit):
            outcome = outcome_of(partial(target.read, path), target.expected_errors, output)
        path.unlink(missing_ok=True)
        pipe.send(outcome)
        if outcome[0].startswith("finding"):
            return


def main(options: argparse.Namespace) -> int:
    """Run the cases and print the report; returns 1 if there are findings."""
    targets = [target for target in (*TARGETS, DOWNLOADS) if target.name in options.kinds]
    report = fuzz(options.cases, options.seed, options.out, targets, options.time_limit)
    print(report.table())
    for case, what, _ in report.findings:
        print(f"case {case}: {what}")
    return 1 if report.findings else 0


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="number of damaged files (default 10000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage (default 0)")
    parser.add_argument("--out", type=Path, default=None, help="folder for files and tracebacks of findings")
    parser.add_argument("--time_limit", type=float, default=20.0, help="seconds that a case may compute (default 20)")
    names = [target.name for target in TARGETS]
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=[*names, DOWNLOADS.name],
        default=names,
        metavar="KIND",
        help=f"kinds of files, in turn: {', '.join(names)} (the default), {DOWNLOADS.name} (slow)",
    )
    return run_tool(parser, main, argv)


if __name__ == "__main__":
    sys.exit(run())
