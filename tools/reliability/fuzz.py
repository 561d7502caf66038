"""Feed damaged annotation files, images and checkpoints to the readers; only their own errors may come out.

    python -m tools.reliability.fuzz --cases 10000 --seed 0 --out FOLDER

A case is made from (seed, its number) alone, but for memory addresses that checkpoints of the old format hold. It
passes if its file is read, or refused by an error of an expected type that code of this repository raised. Anything
else is a finding: an error of another type or from other code, an answer that does not come in time, a process that
dies. The files and tracebacks of findings are kept in FOLDER.
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

from tools.reliability.fuzz_targets import TARGETS, Target
from util.errors import one_sentence
from util.logging import get_logger

REPOSITORY = Path(__file__).resolve().parents[2]
LONGEST_MESSAGE = 2000  # characters
MEMORY = 6 * 2**30  # bytes that one worker may address; a damaged length must not take the machine down


@dataclass
class Report:
    """Outcomes of a run: how often each came up for each target, and the findings as (case, what, traceback)."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[tuple[int, str, str]] = field(default_factory=list)

    def table(self) -> str:
        """One line for each target and outcome."""
        total = sum(self.counts.values())
        width = max((len(outcome) for _, outcome in self.counts), default=0)
        lines = [f"{name:<12} {what:<{width}} {n:>7,}" for (name, what), n in sorted(self.counts.items())]
        return "\n".join([*lines, f"{total:,} cases, {len(self.findings)} findings"])


def fuzz(
    cases: int, seed: int, out: Path | None = None, targets: Sequence[Target] = TARGETS, time_limit: float = 20.0
) -> Report:
    """Run cases 0..`cases` - 1, the targets taking turns.

    Args:
        out: where files and tracebacks of findings go; None keeps none.
        time_limit: seconds a case may take.
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
    except Exception as error:  # whatever comes out is what is asked about
        kind = type(error).__name__
        if not isinstance(error, target.refusals):
            return f"finding: {kind}", traceback.format_exc()
        last = traceback.extract_tb(error.__traceback__)[-1]
        file = Path(last.filename)
        ours = file.is_relative_to(REPOSITORY) and "site-packages" not in file.parts
        if not ours or not last.line.startswith("raise"):  # a line of ours may call compiled code, which has no lines
            return f"finding: {kind} from {file.name}", traceback.format_exc()
        if not 10 < len(one_sentence(error)) < LONGEST_MESSAGE:
            return f"finding: {kind} without a sentence", traceback.format_exc()
        return f"refused: {kind}", ""
    return "accepted", ""


def _run_worker(
    start: int, cases: int, seed: int, targets: Sequence[Target], time_limit: float, folder: Path, report: Report
) -> int:
    """Cases from `start` on in a process of their own, until one of them hangs or kills it; the next case's number."""
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
    except (ImportError, ValueError, OSError):  # not every system has such a limit
        print("fuzzing without a limit of memory", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """The command; 0 without findings."""
    parser = argparse.ArgumentParser(prog="python -m tools.reliability.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000, help="how many files to damage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="folder for files and tracebacks of findings")
    parser.add_argument("--time_limit", type=float, default=20.0, help="seconds one case may take")
    args = parser.parse_args(argv)
    report = fuzz(args.cases, args.seed, args.out, time_limit=args.time_limit)
    print(report.table())
    for case, what, _ in report.findings:
        print(f"case {case}: {what}")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
