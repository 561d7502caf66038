"""Check that training does not leak memory, including loader workers, over thousands of samples of any data set.

python -m tools.reliability.memory_check --coco_path FOLDER [--samples 2000 --num_workers 2, and other flags of main.py]

`--masks` includes the masks of the data and the mask head, `--dataset_file coco_panoptic` the PNG maps.

The loop is the real one (`engine.train_one_epoch` and the loader with its workers); the model is tiny, so that the
memory of the data is visible. It counts the memory that the processes have allocated, anonymous and shared, with
shared pages split between them. Pages of program files are not counted, since other processes that map the same
libraries change their share. Exit code 1 if the median of the last quarter of the readings is more than 2% above that
of the first.

Two things grow at first without being leaks. oneDNN caches compiled kernels for about a thousand shapes: `--warm_up`
waits for them. And glibc keeps freed memory in pieces that rarely fit the next tensors when every batch has another
size: it is returned to the system before each reading. `--keep_freed` omits this and shows the memory that a real run
occupies.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from datasets import build_dataset
from datasets.loader import build_data_loader, set_epoch
from engine import Window, train_one_epoch
from models import build_model
from tools.command import run_tool, tool_parser
from training.optim import build_optimizer
from util.arguments import get_args_parser
from util.compute.device import return_freed_memory
from util.logging import get_logger
from util.rng import seed_everything

LIMIT = 2.0  # per cent
RECIPE = """
    --backbone tiny --backbone_weights none --backbone_norm gn --trainable_layers 5
    --hidden_dim 32 --nheads 2 --dim_feedforward 64 --enc_layers 1 --dec_layers 2 --num_queries 20
    --train_sizes 64 80 96 --max_size 160 --batch_size 4 --num_workers 2 --device cpu
""".split()
MASK_RECIPE = "--hidden_dim 128 --nheads 8".split()  # the smallest that a mask head supports


class Reading(NamedTuple):
    """Memory in MB after a number of samples."""

    samples: int
    main: float
    workers: float

    @property
    def total(self) -> float:
        return self.main + self.workers


def own_memory(pid: int | str = "self") -> float:
    """MB that a process has allocated; memory shared with others counts in part.

    Raises:
        OSError: the system does not report it (Linux does from 5.4 on), or the process does not exist.
    """
    file = Path(f"/proc/{pid}/smaps_rollup")
    fields = dict(line.split(":", 1) for line in file.read_text().splitlines()[1:])
    if "Pss_Anon" not in fields:
        raise OSError(f"{file} has no Pss_Anon, which Linux reports from 5.4 on: measure on a newer system")
    return sum(int(fields[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem")) / 1024  # kB


def take_reading(samples: int) -> Reading:
    """The current memory of this process and of its workers."""
    return Reading(samples, own_memory(), sum(own_memory(child.pid) for child in multiprocessing.active_children()))


class _MeasuredLoader:
    """A loader that takes a reading every `every` samples."""

    def __init__(self, loader: Iterable[Any], every: int, keep_freed: bool) -> None:
        self.loader, self.every, self.keep_freed = loader, every, keep_freed
        self.samples = 0
        self.readings: list[Reading] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            before, self.samples = self.samples, self.samples + len(batch[1])
            if self.samples // self.every > before // self.every:
                if not self.keep_freed:
                    return_freed_memory()
                self.readings.append(take_reading(self.samples))
            yield batch


def measure(args: argparse.Namespace, samples: int, every: int, keep_freed: bool = False) -> list[Reading]:
    """Train a model on at least `samples` samples, over epochs, with a reading every `every` samples.

    Freed memory is returned to the system before each reading, unless `keep_freed` is set.
    """
    seed_everything(args.seed)
    dataset = build_dataset("train", args)
    args.num_classes = dataset.num_classes if args.num_classes is None else args.num_classes
    model, criterion, _ = build_model(args)
    optimizer = build_optimizer(model, args)
    loader = build_data_loader(dataset, args.batch_size, train=True, num_workers=args.num_workers, seed=args.seed)
    measured = _MeasuredLoader(loader, every, keep_freed)
    epoch = 0
    while measured.samples < samples:
        set_epoch(loader, epoch)
        steps = -(-(samples - measured.samples) // args.batch_size)
        device = torch.device(args.device)
        train_one_epoch(
            model,
            criterion,
            measured,
            optimizer,
            device,
            epoch,
            args.clip_max_norm,
            window=Window(stop=steps),
            print_freq=10**9,
        )
        epoch += 1
    return measured.readings


def drift(readings: Sequence[Reading]) -> float:
    """The percentage by which the median of the last quarter of the readings exceeds that of the first."""
    quarter = max(1, len(readings) // 4)
    first, last = (median(r.total for r in part) for part in (readings[:quarter], readings[-quarter:]))
    return 100.0 * (last / first - 1.0)


def table(readings: Sequence[Reading]) -> str:
    """The readings and their drift as text."""
    lines = [f"{'samples':>8}  {'main MB':>8}  {'workers MB':>10}  {'sum MB':>8}"]
    lines += [f"{r.samples:>8}  {r.main:>8.1f}  {r.workers:>10.1f}  {r.total:>8.1f}" for r in readings]
    totals = [r.total for r in readings]
    return "\n".join(
        [
            *lines,
            f"drift {drift(readings):+.2f}% from the first to the last quarter "
            f"(medians; all readings between {min(totals):.1f} and {max(totals):.1f} MB)",
        ]
    )


def main(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Measure and print the readings; returns 1 if memory grew."""
    if min(options.every, options.warm_up + 1) < 1 or options.samples < 4 * options.every:
        parser.error("at least four readings are needed: --samples must be at least four times --every")
    recipe = [*RECIPE, *MASK_RECIPE] if "--masks" in options.training_flags else RECIPE
    flags = [*recipe, *options.training_flags]
    args = argparse.ArgumentParser(parents=[get_args_parser()]).parse_args(flags)
    get_logger().setLevel(logging.WARNING)
    own_memory()  # fails now, before the work, if it cannot be measured
    readings = measure(args, options.warm_up + options.samples, options.every, options.keep_freed)
    counted = [reading for reading in readings if reading.samples > options.warm_up]
    print(table(counted))
    return 0 if drift(counted) <= LIMIT else 1


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__, allow_abbrev=False)
    parser.add_argument("--samples", type=int, default=2000, help="training samples to measure over (default 2000)")
    parser.add_argument("--warm_up", type=int, default=1000, help="samples before the first reading (default 1000)")
    parser.add_argument("--every", type=int, default=100, help="samples between readings (default 100)")
    parser.add_argument("--keep_freed", action="store_true", help="let glibc keep freed memory, as in a real run")
    return run_tool(parser, lambda options: main(options, parser), argv, training_flags=True)


if __name__ == "__main__":
    sys.exit(run())
