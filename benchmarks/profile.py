"""Where the time of inference and of a training step goes: `python -m benchmarks.profile`.

Each form of our network runs in a fresh process under torch's profiler. The times are those of operations without the
operations inside them, on the main thread (on CUDA, those of the kernels), grouped by what they compute.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.common.command import BUILT, OPTIMIZED, PLAIN, Options, run_row
from benchmarks.common.results import Row
from benchmarks.common.rounds import Contestant, measure

KEY = "profile"
SUBJECT = "benchmarks.subjects.profiled"
GROUPS = (
    *("convolutions", "linear layers", "attention", "frozen norms", "other norms", "activations and pooling"),
    *("sums and products", "matching and losses", "clipping and optimizer", "copies", "other"),
)


def run(options: Options) -> Row:
    """Profile both kinds of work in all forms."""
    tasks: dict[str, dict[str, Any]] = {
        f"inference, {PLAIN}": {"form": "plain"},
        f"inference, {BUILT}": {"form": "built"},
        f"inference, {OPTIMIZED}": {"form": "optimized"},
        f"training, {PLAIN}": {"task": "training", "batch": 2, "form": "plain"},
        f"training, {BUILT}": {"task": "training", "batch": 2, "form": "built"},
    }
    contestants = [Contestant(name, SUBJECT, options.work(**{"repeats": 3, **work})) for name, work in tasks.items()]
    measurements = measure(contestants, rounds=1)
    size = "128 × 160" if options.quick else "480 × 640"
    title = f"Profile: milliseconds of inference (1 × {size}) and of a training step (2 × {size}), ResNet-50"
    row = Row(KEY, title, raw=[vars(measurement) for measurement in measurements])
    done = [measurement for measurement in measurements if measurement.values]
    row.notes = [f"| part | {' | '.join(m.name for m in done)} |", "|---" * (len(done) + 1) + "|"]
    for group in GROUPS:
        if any(m.values.get(group) for m in done):
            cells = [f"{m.values[group] * 1e3:.1f}" if m.values.get(group) else "" for m in done]
            row.notes.append(f"| {group} | {' | '.join(cells)} |")
    totals = [f"{sum(m.values.values()) * 1e3:.0f}" for m in done]
    row.notes.append(f"| all | {' | '.join(totals)} |")
    row.notes += ["", *(f"{m.name}: not measured: {m.problem}." for m in measurements if m.problem)]
    return row


if __name__ == "__main__":
    sys.exit(run_row(__doc__, run))
