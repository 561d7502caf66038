"""How long a detector takes for one image in each form, on this processor with equal numbers of threads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from prediction.exported.forms import Runs, load_form
from util.text import printable

ROUNDS = 7
_PACKAGES = {".onnx": ("ONNX Runtime", "onnxruntime"), ".pt2": ("PyTorch", "torch"), ".xml": ("OpenVINO", "openvino")}


def latency_table(models: Mapping[str, Runs], outs: Sequence[Path], size: tuple[int, int], threads: int) -> str:
    """Time models and exported files on one image; one line each, compared with the first.

    Args:
        models: name → what takes image and mask in PyTorch.
        outs: the files. An .xml is timed for any size and compiled for `size` alone.
        size: (height, width) in pixels.
        threads: of every runtime.
    """
    height, width = size
    contestants: dict[str, Runs] = {f"PyTorch {version('torch')}, {name}": model for name, model in models.items()}
    for out in outs:
        runtime, package = _PACKAGES[out.suffix]
        name = f"{printable(out.name)}, {runtime} {version(package)}"
        contestants[name] = load_form(out, threads)
        if out.suffix == ".xml":
            contestants[f"{name}, for this size alone"] = load_form(out, threads, (1, height, width))
    medians = time_in_turns(contestants, size, threads)
    first = next(iter(medians.values()))
    column = max(map(len, medians))
    counted = f"{threads} thread{'s' * (threads != 1)}"
    lines = [f"{height} x {width} pixels, {counted}, medians of {ROUNDS} runs in turns, against the first line:"]
    for name, seconds in medians.items():
        lines.append(f"  {name:{column}}  {seconds * 1000:8.1f} ms  {first / seconds:5.2f} x as fast")
    return "\n".join(lines)


def time_in_turns(contestants: Mapping[str, Runs], size: tuple[int, int], threads: int) -> dict[str, float]:
    """Median seconds of each contestant for one image of `size`.

    They run in turns, so that whatever else the machine does meets them all. Each runs twice in its turn and the
    second run counts: in the first, the threads of the one before may still spin.
    """
    image, mask = torch.randn(1, 3, *size), torch.zeros(1, *size, dtype=torch.bool)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            for _ in range(ROUNDS):
                for name, runs in contestants.items():
                    runs(image, mask)
                    start = time.perf_counter()
                    runs(image, mask)
                    seconds[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return {name: statistics.median(times) for name, times in seconds.items()}
