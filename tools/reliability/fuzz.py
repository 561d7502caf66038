"""Feed damaged annotation files, images and checkpoints to the readers; they may raise only their own errors.

    python -m tools.reliability.fuzz --cases 10000 --seed 0 --out FOLDER

A case depends only on the seed and its number, except for memory addresses in checkpoints of the old format. It passes
if its file is read, or rejected with an error of an expected type that this repository's code raised. Everything else
is a finding: an error of another type or from other code, a timeout, or a process that dies. The files and tracebacks
of findings are kept in FOLDER.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import random
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from tools.command import run_tool, tool_parser
from tools.reliability.fuzz_targets import TARGETS, Target
from util.errors import one_sentence
from util.logging import get_logger

REPOSITORY = Path(__file__).resolve().parents[2]
MAX_MESSAGE = 2000  # characters
MEMORY = 6 * 2**30  # bytes per worker, so that a damaged length cannot exhaust the machine


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
        time_limit: seconds per case.
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


def outcome_of(target: Target, path: Path) -> tuple[str, str]:
    """(outcome, traceback) of reading a file; the traceback is empty unless the outcome is a finding."""
    try:
        target.read(path)
    except Exception as error:  # any error is an outcome
        kind = type(error).__name__
        if not isinstance(error, target.expected_errors):
            return f"finding: {kind}", traceback.format_exc()
        last = traceback.extract_tb(error.__traceback__)[-1]
        file = Path(last.filename)
        ours = file.is_relative_to(REPOSITORY) and "site-packages" not in file.parts
        if not ours or not last.line.startswith("raise"):  # our own line may call compiled code, which leaves no frame
            return f"finding: {kind} from {file.name}", traceback.format_exc()
        if not 10 < len(one_sentence(error)) < MAX_MESSAGE:
            return f"finding: {kind} without a sentence", traceback.format_exc()
        return f"rejected: {kind}", ""
    return "accepted", ""


def _run_worker(
    start: int, cases: int, seed: int, targets: Sequence[Target], time_limit: float, folder: Path, report: Report
) -> int:
    """Run cases from `start` in a separate process until one hangs or kills it; returns the next case's number."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    ours, theirs = context.Pipe(duplex=False)
    worker = context.Process(target=_work, args=(theirs, start, cases, seed, targets, folder), daemon=True)
    worker.start()
    theirs.close()
    case = start
    try:
        while case < cases:
            name = targets[case % len(targets)].name
            if not ours.poll(time_limit):
                what, trace = f"finding: no answer in {time_limit:g} s", ""
            else:
                try:
                    what, trace = ours.recv()
                except EOFError:
                    worker.join()
                    what, trace = f"finding: the process died ({worker.exitcode})", ""
            report.counts[name, what] += 1
            if what.startswith("finding"):
                report.findings.append((case, what.removeprefix("finding: "), trace))
            case += 1
            if what.startswith("finding") and not trace:
                break
    finally:
        worker.kill()
        worker.join()
        ours.close()
    return case


def _work(pipe: Connection, start: int, cases: int, seed: int, targets: Sequence[Target], folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    get_logger().setLevel(logging.CRITICAL)
    _limit_memory()
    for case in range(start, cases):
        target = targets[case % len(targets)]
        path = folder / f"{case}{target.suffix}"
        path.write_bytes(content_of(case, seed, target))
        outcome = outcome_of(target, path)
        if not outcome[0].startswith("finding"):
            path.unlink()
        pipe.send(outcome)


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    except (ImportError, ValueError, OSError):  # not every system supports this limit
        print("fuzzing without a memory limit", file=sys.stderr)


def main(options: argparse.Namespace) -> int:
    """Run the cases and print the report; returns 1 if there are findings."""
    report = fuzz(options.cases, options.seed, options.out, time_limit=options.time_limit)
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
    parser.add_argument("--time_limit", type=float, default=20.0, help="time limit per case in seconds (default 20)")
    return run_tool(parser, main, argv)


if __name__ == "__main__":
    sys.exit(run())
