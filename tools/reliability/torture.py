"""Trainings that are killed, again and again, and a disk that is full: what is saved must stay whole and go on.

python -m tools.reliability.torture --kills 100 --seed 0 --out outputs/torture

A training of seconds is started, killed by SIGKILL and started again with `--resume auto` until it comes to its end;
then the next one, until so many kills are done. Half of the kills come at a random moment, a quarter while a file is
being written, a quarter right behind a new checkpoint.pth, when what belongs to it may not be written yet; before every
other kill SIGUSR1 asks for a checkpoint in the middle of an epoch. After each kill every checkpoint in the folder has
to load, and training must not have fallen back. The next run has to go on at that place. A finished run's files have to
be, to the bit, those of a run nobody disturbed. Then the same with a disk too small for a second checkpoint, see
`tools.reliability.full_disk`. Exit code 1 on any violation.

Starting Python takes longer than such a training, so each run is a fork of this process, which has only imported; it
runs `main.run`, as `python main.py` does. Only the pictures of the evaluations are left out, which take longest.
POSIX only.
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
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tools.reliability.forked_run import ForkedRun
from tools.reliability.full_disk import fill_disk, run_undisturbed
from tools.reliability.tiny_run import differences, fresh_folder, tiny_run
from util.checkpoint import CheckpointError, load_checkpoint

EPOCHS = 4
RUN = ["--batch_size", "2", "--epochs", str(EPOCHS), "--lr_drop", "3", "--checkpoint_every", "2", "--eval_every", "2"]
KINDS = ("kills at a random moment", "kills while a file changed", "kills right behind a new checkpoint")
COUNTED = (
    "kills",
    *KINDS,
    "of them in the middle of a write",
    "checkpoints asked for inside an epoch",
    "checkpoints loaded after kills",
    "loaded ones that stand inside an epoch",
    "runs that went on from a checkpoint",
    "trainings finished, to the bit as undisturbed",
)
START = re.compile(r"^start training: epochs (\d+) to", re.MULTILINE)


@dataclass
class Tally:
    """What happened, by name, and what should not have."""

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def show(self) -> str:
        """A table."""
        width = max(map(len, self.counts), default=0)
        lines = [f"{name:<{width}}  {count:>5}" for name, count in self.counts.items()]
        return "\n".join([*lines, f"{'violations':<{width}}  {len(self.violations):>5}", *self.violations])


class Torture:
    """Trainings under `out`, one after the other, each killed until it is through."""

    def __init__(self, out: Path, seed: int):
        self.out, self.random, self.tally = out, random.Random(seed), Tally()
        self.reference = out / "undisturbed"
        self.command = tiny_run(out, *RUN)

    def run(self, kills: int) -> Tally:
        """Everything; the tally of it."""
        counts = self.tally.counts
        counts.update(dict.fromkeys(COUNTED, 0))
        self.span = run_undisturbed(self.command, self.reference).seconds / 2
        while counts["kills"] < kills:
            self.train(self.out / "killed", kills)
            if self.tally.violations:
                return self.tally  # the folder is left for study
        return self.tally

    def train(self, folder: Path, kills: int) -> None:
        """One training, from nothing to its end, killed meanwhile; at most `kills` in all."""
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
            span = self.span if steps > before else 1.2 * span  # a busy machine may need longer for an epoch
        if self.tally.violations:
            return
        # A kill between the last checkpoint and the end leaves nothing to train, which is said by exit code 1.
        over = run.code == 1 and epoch == EPOCHS - 1 and "nothing is left to train" in run.text()
        if run.code != 0 and not over:
            self.violation(f"a run that was not killed ended with exit code {run.code}, see {run.said}")
        for difference in differences(folder, self.reference):
            self.violation(f"after its end, {difference}")
        counts["trainings finished, to the bit as undisturbed"] += not self.tally.violations

    def kill(self, run: ForkedRun, folder: Path, span: float) -> bool:
        """SIGKILL at a moment that is drawn; False if the run was faster."""
        draw, counts = self.random, self.tally.counts
        moment, save, delay = draw.uniform(0, span), draw.random() < 0.5, draw.uniform(0, 0.02)
        kind = draw.choices(KINDS, weights=(2, 1, 1))[0]
        if not run.wait(lambda: run.seconds > moment):
            return False
        if save and "Epoch: [" in run.text():  # it listens
            run.send(signal.SIGUSR1)
            counts["checkpoints asked for inside an epoch"] += 1
            run.wait(lambda: ", going on" in run.text() or run.seconds > moment + span / 4)
        if kind != KINDS[0]:
            pattern = "checkpoint.pth" if kind == KINDS[2] else "*"
            before = _stamps(folder, pattern)
            run.wait(lambda: _stamps(folder, pattern) != before)
            change = time.monotonic()
            run.wait(lambda: kind == KINDS[2] or time.monotonic() - change > delay)
        run.send(signal.SIGKILL)
        run.wait()
        if run.code not in (-signal.SIGKILL, -signal.SIGUSR1):  # once it is through, it no longer listens
            return False
        counts["kills"] += 1
        counts[kind] += 1
        counts["of them in the middle of a write"] += any(_temporary(folder))
        return True

    def check_folder(self, folder: Path, steps: int) -> tuple[int, int]:
        """All checkpoints load, none is lost; (steps taken, last finished epoch) of the newest."""
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
                counts["loaded ones that stand inside an epoch"] += checkpoint["progress"] is not None
                if steps < before:
                    self.violation(f"{file} fell back from {before} steps to {steps}")
        if steps and epoch == -1 and not (folder / "checkpoint.pth").exists():
            self.violation(f"{folder / 'checkpoint.pth'} is gone")
        return steps, epoch

    def check_start(self, run: ForkedRun, epoch: int) -> None:
        """A run begins behind the last finished epoch of the checkpoint that was there."""
        found = START.search(run.text())
        if found is None:
            return
        self.tally.counts["runs that went on from a checkpoint"] += epoch >= 0
        if int(found[1]) != epoch + 1:
            self.violation(f"a run began with epoch {found[1]} in place of {epoch + 1}, see {run.said}")

    def violation(self, sentence: str) -> None:
        self.tally.violations.append(f"kill {self.tally.counts['kills']}: {sentence}")


def _temporary(folder: Path) -> list[Path]:
    return [*folder.rglob(".*.tmp")]


def _stamps(folder: Path, pattern: str) -> dict[Path, tuple[int, int]]:
    """Name, size and time of the files there, those that begin with a dot among them."""
    stamps = {}
    for file in folder.rglob(pattern):
        with suppress(FileNotFoundError):  # renamed just now
            stat = file.stat()
            stamps[file] = (stat.st_size, stat.st_mtime_ns)
    return stamps


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path("outputs/torture"), help="folder for the runs")
    options = parser.parse_args(argv)
    out = options.out.absolute()
    start = time.monotonic()
    try:
        fresh_folder(out, "torture")
        torture = Torture(out, options.seed)
        tally = torture.run(options.kills)
        if not tally.violations:
            name, saves, problems = fill_disk(out, torture.command, torture.reference, EPOCHS)
            tally.counts[name] = saves
            tally.violations += problems
    except (OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{tally.show()}\n{time.monotonic() - start:.0f} seconds, seed {options.seed}")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
