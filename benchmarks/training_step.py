"""A training step of two images of 480 × 640 with 12 boxes each, with ResNet-50: `python -m benchmarks.training_step`.

Forward, matching, losses, backward, clipping and the update, as the training loop does them. Memory is the most that
the whole process ever holds. `--masks` trains the mask head too. `--one_thread` gives each contestant one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

from benchmarks.common.command import BUILT, HUGGING_FACE, PLAIN, PUBLISHED, Options, detectors, run_row
from benchmarks.common.results import Row
from benchmarks.common.rounds import Contestant, measure

KEY, MASKS, ONE_THREAD = "training_step", "training_step_masks", "training_step_one_thread"
# The published code's seconds relative to Hugging Face's as it comes, as others measured it on such a processor
PUBLISHED_RATIO = 2.93 / 3.9
ALL_TRAIN = f"{HUGGING_FACE}, all layers train"
SPARING = f"{BUILT}, --checkpoint_activations"


def run(options: Options) -> Row:
    """Measure the row without masks."""
    contestants = detectors(options, task="training", batch=2, repeats=3)
    everything = {**contestants[0].options, "flags": {"train_all": True}}
    contestants.insert(1, dataclasses.replace(contestants[0], name=ALL_TRAIN, options=everything))
    sparing = {**contestants[-1].options, "amp": "none", "compile": False, "flags": {"checkpoint_activations": True}}
    contestants.append(Contestant(SPARING, "benchmarks.subjects.ours", sparing))
    size = "128 × 160" if options.quick else "480 × 640"
    row = Row(
        KEY,
        f"Training step, ResNet-50, 2 × {size}, 12 boxes an image",
        [HUGGING_FACE, PUBLISHED, PLAIN],
        measure(contestants, options.turns),
        [
            "Hugging Face's model trains the stem and the first stage too where it is built from a configuration. "
            f"In the line “{HUGGING_FACE}” these are frozen, as in all others."
        ],
    )
    peer, ours = row.find(ALL_TRAIN), row.find(BUILT)
    if peer.seconds and ours.seconds and not row.find(PUBLISHED).seconds and not options.quick:
        ratio = peer.seconds * PUBLISHED_RATIO / ours.seconds
        row.notes.append(
            "Estimate, not a measurement: on such a processor, others found the published code at "
            f"{PUBLISHED_RATIO:.2f} of Hugging Face's time as it comes. By that, a step here is {ratio:.2f} times "
            "faster than the published code's."
        )
    return row


def run_masks(options: Options) -> Row:
    """Measure the row with masks."""
    contestants = detectors(options, task="training", masks=True, batch=2, repeats=1)
    size = "128 × 160" if options.quick else "480 × 640"
    title = f"Training step with masks, ResNet-50, 2 × {size}, 12 objects an image"
    return Row(MASKS, title, [HUGGING_FACE, PUBLISHED, PLAIN], measure(contestants, options.turns))


def run_one_thread(options: Options) -> Row:
    """Measure the row with one thread: one round, since it takes long."""
    single = dataclasses.replace(options, threads=1, rounds=1)
    contestants = [c for c in detectors(single, task="training", batch=2, repeats=1) if c.name in (PLAIN, BUILT)]
    size = "128 × 160" if options.quick else "480 × 640"
    title = f"Training step with one thread, ResNet-50, 2 × {size}, 12 boxes an image"
    return Row(ONE_THREAD, title, [PLAIN], measure(contestants, single.turns))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--one_thread", action="store_true")
    args, sys.argv[1:] = parser.parse_known_args()
    return run_row(__doc__, run_masks if args.masks else run_one_thread if args.one_thread else run)


if __name__ == "__main__":
    sys.exit(main())
