"""Does training leak? Its memory, workers included, over some thousands of samples of any data set:

python -m tools.reliability.memory_check --coco_path FOLDER [--samples 2000 --num_workers 2, and other flags of main.py]

With `--masks` the masks of the data and the mask head are in it, with `--dataset_file coco_panoptic` the PNG maps.

The loop is the real one (`engine.train_one_epoch`, the loader with its workers), the model a tiny one, so that the
data's share shows. Counted is what the processes have allocated: anonymous and shared memory, pages that several of
them share split between them. The pages of program files are left out, since any other process of the machine that
maps the same libraries changes their share. Exit code 1 if the last quarter of the readings lies more than 2% above
the first.

Two things rise at first without being leaks, and level off. oneDNN keeps compiled kernels for the last thousand or so
shapes: `--warm_up` waits for them. And glibc keeps freed memory for later, in pieces that fit the next tensors badly
when every batch has another size: it is handed back to the system before each reading, so that what is held shows;
`--keep_freed` leaves it, and shows what the system sees of a training.
"""

from __future__ import annotations

import argparse
import ctypes
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
from engine import train_one_epoch
from models import build_model
from training.optim import build_optimizer
from util.arguments import get_args_parser
from util.logging import get_logger
from util.rng import seed_everything

LIMIT = 2.0  # per cent
RECIPE = """
    --backbone tiny --backbone_weights none --backbone_norm gn --trainable_layers 5
    --hidden_dim 32 --nheads 2 --dim_feedforward 64 --enc_layers 1 --dec_layers 2 --num_queries 20
    --train_sizes 64 80 96 --max_size 160 --batch_size 4 --num_workers 2 --device cpu
""".split()
MASK_RECIPE = "--hidden_dim 128 --nheads 8".split()  # the smallest that a mask head can stand on


class Reading(NamedTuple):
    """Memory in MB after so many samples."""

    samples: int
    main: float
    workers: float

    @property
    def total(self) -> float:
        return self.main + self.workers


def own_memory(pid: int | str = "self") -> float:
    """MB that a process has allocated, its share of what it has in common with others.

    Raises:
        OSError: the system does not tell (Linux does, from 5.4 on), or there is no such process.
    """
    file = Path(f"/proc/{pid}/smaps_rollup")
    fields = dict(line.split(":", 1) for line in file.read_text().splitlines()[1:])
    if "Pss_Anon" not in fields:
        raise OSError(f"{file} lacks Pss_Anon, which Linux tells from 5.4 on: measure on a newer system")
    return sum(int(fields[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem")) / 1024  # kB


def take_reading(samples: int) -> Reading:
    """This process and the workers it has started, now."""
    return Reading(samples, own_memory(), sum(own_memory(child.pid) for child in multiprocessing.active_children()))


def hand_back_freed_memory() -> None:
    """Have glibc return what this process has freed to the system; elsewhere do nothing."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


class _Watched:
    """A loader that takes a reading with every so many samples that come out of it."""

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
                    hand_back_freed_memory()
                self.readings.append(take_reading(self.samples))
            yield batch


def measure(args: argparse.Namespace, samples: int, every: int, keep_freed: bool = False) -> list[Reading]:
    """Train a model as `args` say on at least so many samples, epoch after epoch; a reading every so many.

    `keep_freed` leaves the C library what is freed, as in any training; else it is handed back before each reading.
    """
    seed_everything(args.seed)
    dataset = build_dataset("train", args)
    args.num_classes = dataset.num_classes if args.num_classes is None else args.num_classes
    model, criterion, _ = build_model(args)
    optimizer = build_optimizer(model, args)
    loader = build_data_loader(dataset, args.batch_size, train=True, num_workers=args.num_workers, seed=args.seed)
    watched = _Watched(loader, every, keep_freed)
    epoch = 0
    while watched.samples < samples:
        set_epoch(loader, epoch)
        steps = -(-(samples - watched.samples) // args.batch_size)
        device = torch.device(args.device)
        train_one_epoch(
            model, criterion, watched, optimizer, device, epoch, args.clip_max_norm, max_steps=steps, print_freq=10**9
        )
        epoch += 1
    return watched.readings


def drift(readings: Sequence[Reading]) -> float:
    """Per cent by which the median of the last quarter lies above that of the first."""
    quarter = max(1, len(readings) // 4)
    first, last = (median(r.total for r in part) for part in (readings[:quarter], readings[-quarter:]))
    return 100.0 * (last / first - 1.0)


def table(readings: Sequence[Reading]) -> str:
    """The readings and their drift, to print."""
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


def main(argv: list[str] | None = None) -> int:
    """The command. Exit code 0 if the memory is flat, 1 if it grows or cannot be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--samples", type=int, default=2000, help="training samples to measure over")
    parser.add_argument("--warm_up", type=int, default=1000, help="samples before the first reading that counts")
    parser.add_argument("--every", type=int, default=100, help="samples between readings")
    parser.add_argument("--keep_freed", action="store_true", help="let glibc keep freed memory, as it does in training")
    options, further = parser.parse_known_args(argv)  # what this parser does not know goes to the training
    if min(options.every, options.warm_up + 1) < 1 or options.samples < 4 * options.every:
        parser.error("drift is told from four readings or more: give --samples at least four times --every")
    recipe = [*RECIPE, *MASK_RECIPE] if "--masks" in further else RECIPE
    args = argparse.ArgumentParser(parents=[get_args_parser()]).parse_args([*recipe, *further])
    get_logger().setLevel(logging.WARNING)
    try:
        own_memory()  # not measurable? then say so before the work
        readings = measure(args, options.warm_up + options.samples, options.every, options.keep_freed)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    counted = [reading for reading in readings if reading.samples > options.warm_up]
    print(table(counted))
    return 0 if drift(counted) <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
