"""The process that `benchmarks.beside_other_work` measures: training steps, on request.

`python -m benchmarks.subjects.timed_steps MODEL FOLDER SECONDS`: MODEL is `demo`, which reads the pictures in FOLDER,
or `resnet50`, on random images. `draw FOLDER` draws the pictures. For each line of JSON on standard input,
{"workers": N}, it trains for SECONDS and prints the seconds of each step.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datasets import build_dataset
from datasets.loader import build_data_loader
from datasets.shapes import write_shapes
from models import build_model
from training.optim import build_optimizer
from util.arguments import parse
from util.nested_tensor import NestedTensor

WARM_UP = 5  # steps, if they are fast enough: more than the batches that waiting workers have ready
FLAGS = """
    --backbone tiny --dilation --backbone_norm bn --backbone_weights none --trainable_layers 5
    --hidden_dim 128 --dim_feedforward 512 --enc_layers 2 --dec_layers 3 --num_queries 12 --dropout 0
    --train_sizes 96 --max_size 96 --val_size 96 --no_crop --batch_size 16 --num_classes 4
""".split()
RESNET50 = ["--backbone_weights", "none"]


def endless(loader: Any) -> Iterator[Any]:
    """Batch after batch, epoch after epoch."""
    while True:
        yield from loader


def random_batches(images: int = 2, boxes: int = 12) -> Iterator[Any]:
    """The same batch of 240 × 320 pixels for ever."""
    samples = NestedTensor(torch.randn(images, 3, 240, 320), torch.zeros(images, 240, 320, dtype=torch.bool))
    targets = [
        {"labels": torch.randint(1, 91, (boxes,)), "boxes": torch.rand(boxes, 4) * 0.2 + 0.4} for _ in range(images)
    ]
    while True:
        yield samples, targets


def step_times(
    model: nn.Module,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Any],
    max_norm: float,
) -> Iterator[float]:
    """Seconds of one training step after the other."""
    while True:
        start = time.perf_counter()
        samples, targets = next(batches)
        losses = criterion(model(samples), targets)
        loss = sum(losses[name] * weight for name, weight in criterion.weight_dict.items())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        yield time.perf_counter() - start


def main(name: str, folder: Path, seconds: float) -> None:
    """Answer the requests on standard input."""
    torch.manual_seed(0)
    args = parse(["--coco_path", str(folder), *(FLAGS if name == "demo" else RESNET50)])
    model, criterion, _ = build_model(args)
    model.train()
    optimizer = build_optimizer(model, args)
    data = build_dataset("train", args) if name == "demo" else None
    steps: dict[int, Iterator[float]] = {}
    print("ready", flush=True)
    for line in sys.stdin:
        workers = json.loads(line)["workers"]
        if workers not in steps:
            loader = data and build_data_loader(data, args.batch_size, train=True, num_workers=workers)
            batches = endless(loader) if loader else random_batches()
            steps[workers] = step_times(model, criterion, optimizer, batches, args.clip_max_norm)
            next(steps[workers])  # imports, memory, the start of the workers
        times: list[float] = []
        start = time.perf_counter()
        for count, took in enumerate(steps[workers]):
            if count >= WARM_UP or time.perf_counter() - start > seconds:
                times.append(took)
            if sum(times) >= seconds:
                break
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "draw":
        write_shapes(Path(sys.argv[2]), train=800, val=1)
    else:
        main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
