"""Panoptic inference of one image of 480 × 640 with ResNet-50: `python -m benchmarks.panoptic`.

Boxes, classes and masks of 100 queries; the step from them to a panoptic map is not part of it.
"""

from __future__ import annotations

import sys

from benchmarks.common.command import HUGGING_FACE, PLAIN, PUBLISHED, Options, detectors, run_row
from benchmarks.common.results import Row
from benchmarks.common.rounds import measure

KEY = "panoptic"


def run(options: Options) -> Row:
    """Measure the row."""
    contestants = detectors(options, optimized=True, masks=True, repeats=3)
    size = "128 × 160" if options.quick else "480 × 640"
    title = f"Panoptic inference, ResNet-50, 1 × {size}"
    return Row(KEY, title, [HUGGING_FACE, PUBLISHED, PLAIN], measure(contestants, options.turns))


if __name__ == "__main__":
    sys.exit(run_row(__doc__, run))
