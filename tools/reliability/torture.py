"""Kill training runs again and again, and fill the disk: checkpoints must stay intact and training must resume.

python -m tools.reliability.torture --kills 100 --seed 0 --out outputs/torture

A run that takes seconds is started, killed by SIGKILL and restarted with `--resume auto` until it finishes; then the
next one, until `--kills` is reached. Half of the kills come at a random moment, a quarter while a file is being
written, and a quarter right after a new checkpoint.pth, when the files that belong to it may not be written yet. Before
every other kill, SIGUSR1 requests a checkpoint in the middle of an epoch. After each kill, every checkpoint in the
folder must load, and no progress may be lost; the next run must resume there. The files of a finished run must be bit
for bit those of an undisturbed run. At the end, the disk gets too small for a second checkpoint, see
`tools.reliability.full_disk`. Exit code 1 on any violation.

Starting Python takes longer than such a run, so each run is a fork of this process and calls `main.run`, as
`python main.py` does. Pictures of evaluations are not drawn, since they take the longest. POSIX only.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tools.command import run_tool, tool_parser
from tools.reliability.forked_run import ForkedRun
from tools.reliability.full_disk import fill_disk, run_undisturbed
from tools.reliability.tiny_run import differences, fresh_folder, tiny_run
from util.checkpoint import CheckpointError, load_checkpoint

EPOCHS = 4
RUN = ["--batch_size", "2", "--epochs", str(EPOCHS), "--lr_drop", "3", "--checkpoint_every", "2", "--eval_every", "2"]
KINDS = ("kills at a random moment", "kills while a file changed", "kills right after a new checkpoint")
COUNTED = (
    "kills",
    *KINDS,
    "kills in the middle of a write",
    "checkpoints requested inside an epoch",
    "checkpoints loaded after kills",
    "loaded checkpoints inside an epoch",
    "runs resumed from a checkpoint",
    "trainings finished bit for bit as undisturbed",
)
START = re.compile(r"^start training: epochs (\d+) to", re.MULTILINE)


@dataclass
class Tally:
    """Counts of events, by name, and violations."""

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def show(self) -> str:
        """The counts and violations as text."""
        width = max(map(len, self.counts), default=0)
        lines = [f"{name:<{width}}  {count:>5}" for name, count in self.counts.items()]
        return "\n".join([*lines, f"{'violations':<{width}}  {len(self.violations):>5}", *self.violations])


class Torture:
    """Trainings under `out`, one after the other, each killed repeatedly until it finishes."""

    def __init__(self, out: Path, seed: int):
        self.out, self.random, self.tally = out, random.Random(seed), Tally()
        self.reference = out / "undisturbed"
        self.command = tiny_run(out, *RUN)

    def run(self, kills: int) -> Tally:
        """Kill trainings until the number of kills is reached; returns the tally."""
        counts = self.tally.counts
        counts.update(dict.fromkeys(COUNTED, 0))
        self.span = run_undisturbed(self.command, self.reference).seconds / 2
        while counts["kills"] < kills:
            self.train(self.out / "killed", kills)
            if self.tally.violations:
                return self.tally  # the folder is kept for inspection
        return self.tally

    def train(self, folder: Path, kills: int) -> None:
        """One training from start to end, killed meanwhile, until the total number of kills is `kills`."""
        shutil.rmtree(folder, ignore_errors=True)
        command = [*self.command, "--output_dir", str(folder), "--resume", "auto"]
        counts, steps, epoch, span = self.tally.counts, 0, -1, self.span
        while not self.tally.violations:
            run = ForkedRun(command, self.out / "killed.txt")
            killed = counts["kills"] < kills and self.kill(run, folder, span)
            run.wait()
            self.check_start(run, epoch)
            if not killed:
                break
            before, (steps, epoch) = steps, self.check_folder(folder, steps)
            span = self.span if steps > before else 1.2 * span  # on a busy machine an epoch may take longer
        if self.tally.violations:
            return
        # After a kill between the last checkpoint and the end nothing is left to train, which gives exit code 1.
        over = run.code == 1 and epoch == EPOCHS - 1 and "nothing is left to train" in run.text()
        if run.code != 0 and not over:
            self.violation(f"a run that was not killed ended with exit code {run.code}, see {run.log}")
        for difference in differences(folder, self.reference):
            self.violation(f"at the end, {difference}")
        counts["trainings finished bit for bit as undisturbed"] += not self.tally.violations

    def kill(self, run: ForkedRun, folder: Path, span: float) -> bool:
        """Send SIGKILL at a random moment; returns False if the run ended before it."""
        draw, counts = self.random, self.tally.counts
        moment, save, delay = draw.uniform(0, span), draw.random() < 0.5, draw.uniform(0, 0.02)
        kind = draw.choices(KINDS, weights=(2, 1, 1))[0]
        if not run.wait(lambda: run.seconds > moment):
            return False
        if save and START.search(run.text()):
            run.send(signal.SIGUSR1)
            counts["checkpoints requested inside an epoch"] += 1
            run.wait(lambda: "saved epoch" in run.text() or run.seconds > moment + span / 4)
        if kind != KINDS[0]:
            pattern = "checkpoint.pth" if kind == KINDS[2] else "*"
            before = _stamps(folder, pattern)
            run.wait(lambda: _stamps(folder, pattern) != before)
            change = time.monotonic()
            run.wait(lambda: kind == KINDS[2] or time.monotonic() - change > delay)
        run.send(signal.SIGKILL)
        run.wait()
        if run.code not in (-signal.SIGKILL, -signal.SIGUSR1):  # at its end, it no longer handles SIGUSR1
            return False
        counts["kills"] += 1
        counts[kind] += 1
        counts["kills in the middle of a write"] += any(_temporary(folder))
        return True

    def check_folder(self, folder: Path, steps: int) -> tuple[int, int]:
        """Check that all checkpoints load and none is lost; returns (steps, last finished epoch) of the newest."""
        counts, epoch = self.tally.counts, -1
        for file in sorted(folder.glob("checkpoint*.pth")):
            try:
                checkpoint = load_checkpoint(file)
            except CheckpointError as error:
                self.violation(f"after a kill, {error}")
                continue
            counts["checkpoints loaded after kills"] += 1
            if file.name == "checkpoint.pth":
                before, steps, epoch = steps, checkpoint["step"], checkpoint["epoch"]
                counts["loaded checkpoints inside an epoch"] += checkpoint["progress"] is not None
                if steps < before:
                    self.violation(f"{file} went back from {before} steps to {steps}")
        if steps and epoch == -1 and not (folder / "checkpoint.pth").exists():
            self.violation(f"{folder / 'checkpoint.pth'} has disappeared")
        return steps, epoch

    def check_start(self, run: ForkedRun, epoch: int) -> None:
        """Check that a run starts after the last finished epoch of its checkpoint."""
        found = START.search(run.text())
        if found is None:
            return
        self.tally.counts["runs resumed from a checkpoint"] += epoch >= 0
        if int(found[1]) != epoch + 1:
            self.violation(f"a run started with epoch {found[1]} instead of {epoch + 1}, see {run.log}")

    def violation(self, sentence: str) -> None:
        self.tally.violations.append(f"kill {self.tally.counts['kills']}: {sentence}")


def _temporary(folder: Path) -> list[Path]:
    return [*folder.rglob(".*.tmp")]


def _stamps(folder: Path, pattern: str) -> dict[Path, tuple[int, int]]:
    """Name, size and time of the files in a folder, hidden ones included."""
    stamps = {}
    for file in folder.rglob(pattern):
        with suppress(FileNotFoundError):  # just renamed
            stat = file.stat()
            stamps[file] = (stat.st_size, stat.st_mtime_ns)
    return stamps


def main(options: argparse.Namespace) -> int:
    """Run the trial and print the counts; returns 1 if anything was violated."""
    out = options.out.absolute()
    start = time.monotonic()
    fresh_folder(out, "torture")
    torture = Torture(out, options.seed)
    tally = torture.run(options.kills)
    if not tally.violations:
        name, saves, problems = fill_disk(out, torture.command, torture.reference, EPOCHS)
        tally.counts[name] = saves
        tally.violations += problems
    print(f"{tally.show()}\n{time.monotonic() - start:.0f} seconds, seed {options.seed}")
    return 1 if tally.violations else 0


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("--kills", type=int, default=100, help="number of kills (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the times of the kills (default 0)")
    parser.add_argument("--out", type=Path, default=Path("outputs/torture"), help="folder for the runs")
    return run_tool(parser, main, argv)


if __name__ == "__main__":
    sys.exit(run())
