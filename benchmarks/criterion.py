"""Matching and losses, forward and backward: `python -m benchmarks.criterion`.

16 images of 20 boxes, predictions of 6 decoder layers with 100 queries each. Hugging Face's losses follow the published
ones, and their times are close.
"""

from __future__ import annotations

import sys

from benchmarks.common.command import HUGGING_FACE, PLAIN, PUBLISHED, Options, detectors, run_row
from benchmarks.common.results import Row
from benchmarks.common.rounds import measure

KEY = "criterion"


def run(options: Options) -> Row:
    """Measure the row."""
    contestants = detectors(options, task="criterion", batch=16, boxes=20, backbone="resnet18", repeats=15, warmup=3)
    contestants = [contestant for contestant in contestants if "," not in contestant.name]
    measurements = measure(contestants, options.turns)
    for measurement in measurements:
        measurement.peaks = []  # most of it is the model, which is built but not used
    title = "Criterion and matcher, forward and backward, 16 × 20 boxes × 6 layers × 100 queries"
    return Row(KEY, title, [HUGGING_FACE, PUBLISHED, PLAIN], measurements)


if __name__ == "__main__":
    sys.exit(run_row(__doc__, run))
