"""All rows, one after the other, and the table: `python -m benchmarks.run_all --out docs/benchmarks.md`.

The measurements are saved as JSON beside the table after every row. `--only` measures some rows again and keeps the
others; `--rebuild` writes the table from the JSON alone. In an existing file only the part between the two markers
changes, and all else in it stays.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import criterion, device_waits, inference, panoptic, profile, startup, training_step
from benchmarks.common.command import Options, add_options, fail, options_of
from benchmarks.common.machine import describe_machine
from benchmarks.common.results import Row, read_rows, row_of, write_rows
from benchmarks.common.rounds import REPOSITORY, environment, progress
from benchmarks.common.table import machine_of, markdown_of, replace_part, summary_of

ROWS: dict[str, Callable[[Options], Row]] = {
    inference.KEY: inference.run,
    training_step.KEY: training_step.run,
    panoptic.KEY: panoptic.run,
    training_step.MASKS: training_step.run_masks,
    criterion.KEY: criterion.run,
    "loading": lambda options: by_script(
        "loading", "Loading: the training pipeline", *(QUICK_LOADING if options.quick else ())
    ),
    "evaluator": lambda options: by_script("evaluator", "Evaluator", *(["--images", "300"] if options.quick else [])),
    startup.KEY: startup.run,
    device_waits.KEY: device_waits.run,
    "beside_other_work": lambda options: beside_other_work(options),
    training_step.ONE_THREAD: training_step.run_one_thread,
    profile.KEY: profile.run,
}
QUICK_LOADING = ("--images", "4", "--annotations", "0", "--repeat", "1")
CPU_ONLY = {"loading", "evaluator", startup.KEY, "beside_other_work", training_step.ONE_THREAD}
BEGIN, END = "<!-- measurements: begin -->", "<!-- measurements: end -->"


def by_script(name: str, title: str, *arguments: str, raw: str = "") -> Row:
    """A row from a script with a command line of its own: the row that it writes with `--json`, or what it prints.

    Args:
        name: of the script in `benchmarks`, and of the row.
        arguments: of the script.
        raw: a flag of the script that takes a file for its measurements, one JSON a line.
    """
    script = REPOSITORY / "benchmarks" / f"{name}.py"
    if not script.exists():
        return Row(name, title, notes=["Not measured: there is no script for it."])
    with tempfile.TemporaryDirectory() as folder:
        rows, lines = Path(folder, "row.json"), Path(folder, "raw.jsonl")
        command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
        if "--json" in script.read_text(encoding="utf-8"):
            command += ["--json", str(rows)]
        if raw:
            command += [raw, str(lines)]
        environment_of_scripts = environment(REPOSITORY, None)
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment_of_scripts, stdout=subprocess.PIPE, text=True, timeout=900
        )
        if done.returncode:
            return Row(name, title, notes=[f"Not measured: the script ended with exit code {done.returncode}."])
        if rows.exists():
            return dataclasses.replace(read_rows(rows)[0], key=name)
        printed = done.stdout.strip().splitlines()
        kept = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()] if lines.exists() else []
    fence = [] if printed and printed[0].startswith("|") else ["```"]
    return Row(name, title, notes=[*fence, *printed, *fence], raw=kept)


def beside_other_work(options: Options) -> Row:
    """The row of a busy machine."""
    title = "A training step of the demo's model beside other work, in seconds"
    short = ("--seconds", "0.5", "--workers", "0", "--busy", "0", "1") if options.quick else ()
    runs = str(options.turns)
    return by_script("beside_other_work", title, "--runs", runs, *short, raw="--results")


def measure_row(key: str, options: Options) -> Row:
    """One row; what goes wrong is a note in it."""
    if options.device != "cpu" and key in CPU_ONLY:
        return Row(key, key.replace("_", " ").capitalize(), notes=["Not measured: a row of the CPU."])
    try:
        return ROWS[key](options)
    except Exception as error:  # a row that fails must not cost the others
        return Row(key, key.replace("_", " ").capitalize(), notes=[f"Not measured: {error!r}"[:400]])


def document(rows: Sequence[Row]) -> str:
    """The part between the markers."""
    parts = ["## Summary", summary_of(rows), "## Machine", machine_of(rows), "## Rows", *map(markdown_of, rows)]
    return "\n\n".join(part.strip("\n") for part in parts)


def merged(earlier: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """All rows in the order of `ROWS`; new ones replace earlier ones."""
    found = {row.key: row for row in [*earlier, *new]}
    return [found[key] for key in ROWS if key in found]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=list(ROWS), help=", ".join(ROWS))
    parser.add_argument("--out", type=Path, required=True, help="a Markdown file, or a folder for benchmarks.md")
    parser.add_argument("--rebuild", action="store_true", help="measure nothing; write the table from the JSON")
    args = parser.parse_args()
    path = args.out if args.out.suffix == ".md" else args.out / "benchmarks.md"
    raw = path.with_suffix(".json")
    rows, machine, options = read_rows(raw), describe_machine(), options_of(args)
    if args.rebuild and not rows:
        return fail(f"there are no measurements in {raw}: run without --rebuild first")
    start = time.perf_counter()
    for key in [] if args.rebuild else args.only or ROWS:
        progress(f"{key} ({time.perf_counter() - start:.0f} s)")
        row = measure_row(key, options)
        row.machine = row.machine or machine
        rows = merged(rows, [row_of(dataclasses.asdict(row))])
        write_rows(raw, rows)
    replace_part(path, BEGIN, END, document(rows))
    progress(f"wrote {path} and {raw} ({time.perf_counter() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
