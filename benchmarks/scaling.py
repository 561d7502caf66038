"""What several GPUs can be expected to gain, from the time of one step: `python -m benchmarks.scaling --step 0.23`.

Data-parallel training computes a step on every GPU and sums the gradients of all. The sum goes around a ring: each GPU
sends and receives 2 · (n − 1) / n times the gradients' bytes. It overlaps with the backward pass except for the last
bucket, so that a step takes

    max(step, forward + sum) + last bucket + latency

The table is on paper: only the step's time and the number of parameters are measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

GIGA = 1e9
BUCKET = 25e6  # bytes that DistributedDataParallel sends at once
LATENCY = 20e-6  # seconds for each hop of the ring, twice around, for each bucket
IMAGES = 118_287  # COCO train2017
EPOCHS = 300


@dataclass(frozen=True)
class Link:
    """What connects the GPUs.

    Attributes:
        name: as the table shows it.
        speed: bytes a second that one GPU can send while it receives as many.
        gpus: the numbers of GPUs to show.
    """

    name: str
    speed: float
    gpus: Sequence[int]


# Of what the data sheets promise, 70 % arrive in practice.
ARRIVES = 0.7
LINKS = (
    Link("NVLink of a V100 (150 GB/s per direction)", 150 * GIGA * ARRIVES, (8,)),
    Link("NVLink of an H100 (450 GB/s per direction)", 450 * GIGA * ARRIVES, (8,)),
    Link("PCIe 3.0 × 16 (16 GB/s), shared by 2 GPUs", 16 * GIGA * ARRIVES / 2, (8,)),
    Link("PCIe 4.0 × 16 (32 GB/s)", 32 * GIGA * ARRIVES, (8,)),
    Link("200 Gb/s InfiniBand per machine of 8", 25 * GIGA * ARRIVES, (64,)),
    Link("100 Gb/s Ethernet per machine of 8", 12.5 * GIGA * ARRIVES, (64,)),
    Link("25 Gb/s Ethernet per machine of 8", 3.125 * GIGA * ARRIVES, (64,)),
    Link("10 Gb/s Ethernet per machine of 8", 1.25 * GIGA * ARRIVES, (64,)),
)


@dataclass(frozen=True)
class Forecast:
    """A step on several GPUs.

    Attributes:
        exchange: seconds that the sum of the gradients takes.
        step: seconds of the whole step.
        efficiency: part of the speed of as many GPUs that need not talk.
    """

    exchange: float
    step: float
    efficiency: float


def forecast(
    step: float, parameters: float, gpus: int, speed: float, *, width: int = 4, forward: float = 0.35
) -> Forecast:
    """The step on `gpus` GPUs.

    Args:
        step: seconds of one step on one GPU.
        parameters: that are trained.
        speed: bytes a second of the slowest link of the ring.
        width: bytes of a gradient.
        forward: the part of the step before the first gradient is there.
    """
    volume = 2 * (gpus - 1) / gpus * parameters * width
    buckets = max(1.0, parameters * width / BUCKET)
    latency = 2 * (gpus - 1) * LATENCY
    exchange = volume / speed + buckets * latency
    last = exchange / buckets  # the first layers' gradients come last, and nothing is left to overlap with
    total = max(step, forward * step + exchange - last) + last
    return Forecast(exchange, total, step / total)


def days(step: float, gpus: int, batch: int) -> float:
    """Days of 300 epochs of COCO, without evaluation."""
    return EPOCHS * (IMAGES // (gpus * batch)) * step / 86_400


def table(step: float, parameters: float, batch: int, width: int, forward: float) -> Iterator[str]:
    """Lines of Markdown: a row for each link and number of GPUs."""
    yield "| link | GPUs | exchange | step | efficiency | 300 epochs |"
    yield "|---|---|---|---|---|---|"
    yield f"| one GPU | 1 | | {step * 1e3:.0f} ms | 100 % | {days(step, 1, batch):.1f} days |"
    for link in LINKS:
        for gpus in link.gpus:
            found = forecast(step, parameters, gpus, link.speed, width=width, forward=forward)
            cells = [link.name, str(gpus), f"{found.exchange * 1e3:.1f} ms", f"{found.step * 1e3:.0f} ms"]
            yield f"| {' | '.join(cells)} | {found.efficiency:.0%} | {days(found.step, gpus, batch):.2f} days |"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=float, required=True, help="seconds of one training step on one GPU")
    parser.add_argument("--batch", type=int, default=2, help="images of a step on one GPU (2)")
    parser.add_argument("--parameters", type=float, default=41.28e6, help="that are trained (DETR-R50: 41.28e6)")
    parser.add_argument("--width", type=int, default=4, help="bytes of a gradient (4)")
    parser.add_argument("--forward", type=float, default=0.35, help="part of the step before the first gradient (0.35)")
    args = parser.parse_args()
    print("\n".join(table(args.step, args.parameters, args.batch, args.width, args.forward)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
