"""Contestants in turns, each in a fresh process: A, B, C, A, B, C, A, B, C.

A drift of the machine (its clock, its temperature, a neighbour) so reaches all of them alike. The parent process
imports nothing heavy: the memory and the threads of a contestant are its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common.results import Measurement

REPOSITORY = Path(__file__).resolve().parents[2]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PROBLEM_LENGTH = 300  # characters of an error that the table shows


@dataclass(frozen=True)
class Contestant:
    """One piece of code at one piece of work.

    Attributes:
        name: as the table shows it.
        subject: the module that a fresh process runs.
        options: for the subject, see `benchmarks.common.work.Work`.
        folder: working directory and first entry of the import path; by default this repository.
        problem: why it cannot be measured, if that is known beforehand.
    """

    name: str
    subject: str
    options: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = REPOSITORY
    problem: str = ""


def measure(contestants: Iterable[Contestant], rounds: int = 3, limit: float = 600) -> list[Measurement]:
    """Measure each contestant once a round.

    Args:
        contestants: in the order of a round.
        rounds: fresh processes for each.
        limit: seconds after which a process is ended and its contestant left out.
    """
    contestants = list(contestants)
    measurements = [Measurement(c.name, problem=c.problem, details={"options": dict(c.options)}) for c in contestants]
    for turn in range(rounds):
        for contestant, measurement in zip(contestants, measurements):
            if not measurement.problem:
                _add_round(contestant, measurement, turn, limit)
    return measurements


def _add_round(contestant: Contestant, measurement: Measurement, turn: int, limit: float) -> None:
    start = time.perf_counter()
    command = [sys.executable, "-m", contestant.subject, json.dumps(dict(contestant.options))]
    try:
        result = run_fresh(command, contestant.folder, contestant.options.get("threads"), limit)
    except RuntimeError as error:
        measurement.problem = str(error)
        progress(f"  round {turn + 1}: {contestant.name}: not measured: {error}")
        return
    measurement.rounds.append(result["seconds"])
    if result.get("peak"):
        measurement.peaks.append(result["peak"])
    measurement.values |= result.get("values", {})
    measurement.check = result.get("check", [])
    measurement.details |= result.get("details", {})
    median = f"{measurement.medians()[-1]:.4g} s, " if result["seconds"] else ""
    memory, took = (result.get("peak") or 0) / 1e9, time.perf_counter() - start
    progress(f"  round {turn + 1}: {contestant.name}: {median}{memory:.2f} GB ({took:.0f} s)")


def run_fresh(command: Sequence[str], folder: Path, threads: int | None, limit: float) -> dict[str, Any]:
    """Run a command and return the result that it prints as a line of JSON, see `work.report`.

    Raises:
        RuntimeError: it failed, took too long or printed something else; one sentence.
    """
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment(folder, threads), capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"it took more than {limit:.0f} s") from None
    if done.returncode:
        raise RuntimeError(_last_line(done.stderr) or f"it ended with exit code {done.returncode}")
    return result_in(done.stdout)


def result_in(output: str) -> dict[str, Any]:
    """The result among the lines of a process, see `work.report`; RuntimeError if there is none."""
    for line in reversed(output.splitlines()):  # libraries may print after it
        if line.startswith('{"seconds"'):
            return json.loads(line)
    raise RuntimeError("it printed no result")


def environment(folder: Path, threads: int | None) -> dict[str, str]:
    """The environment of a fresh process: the import path, and the number of threads of every library."""
    variables = dict(os.environ)
    paths = [str(folder), str(REPOSITORY), *filter(None, [variables.get("PYTHONPATH")])]
    variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    variables |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # nothing is downloaded
    if threads:
        variables |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    return variables


def progress(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:PROBLEM_LENGTH] if lines else ""
