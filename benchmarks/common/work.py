"""The work that all contestants do: its sizes, its images and boxes, and how it is timed. Imports nothing else of ours.

Shapes: `B` batch, `H`, `W` height and width of the images, `n` objects of an image.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SMALL_CLASSES = 91  # COCO's ids, for detection
PANOPTIC_CLASSES = 250


@dataclass(frozen=True)
class Work:
    """What to do, how often, and on what.

    Attributes:
        task: "inference", "training" or "criterion".
        masks: with the mask head; as panoptic segmentation.
        boxes: objects in each image.
        repeats: timed repetitions, after `warmup` others.
        form: of our own code: "built", "plain" or "optimized".
        amp: "none", "bf16" or "fp16".
        flags: more settings of our own training, name → value.
        path: of an exported file.
    """

    task: str = "inference"
    masks: bool = False
    batch: int = 1
    height: int = 480
    width: int = 640
    boxes: int = 12
    queries: int = 100
    layers: int = 6
    backbone: str = "resnet50"
    device: str = "cpu"
    threads: int | None = None
    warmup: int = 1
    repeats: int = 3
    form: str = "built"
    amp: str = "none"
    compile: bool = False
    flags: dict[str, Any] | None = None
    path: str = ""
    seed: int = 0

    @property
    def num_classes(self) -> int:
        return PANOPTIC_CLASSES if self.masks else SMALL_CLASSES


def read_work(argv: Sequence[str] | None = None) -> Work:
    """The work that the command line of a subject names, as JSON. Sets the seed and the number of threads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=json.loads, help="fields of `benchmarks.common.work.Work` as JSON")
    given = parser.parse_args(argv).work
    unknown = given.keys() - {field.name for field in fields(Work)}
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}")
    work = Work(**given)
    torch.manual_seed(work.seed)
    if work.threads:
        torch.set_num_threads(work.threads)
    return work


def made_images(work: Work) -> tuple[Tensor, Tensor]:
    """Random images [B, 3, H, W], and their mask [B, H, W], which marks no padding."""
    generator = torch.Generator().manual_seed(work.seed)
    images = torch.randn(work.batch, 3, work.height, work.width, generator=generator)
    mask = torch.zeros(work.batch, work.height, work.width, dtype=torch.bool)
    return images.to(work.device), mask.to(work.device)


def made_targets(work: Work) -> list[dict[str, Tensor]]:
    """For each image labels [n], boxes [n, 4] (cxcywh fractions) and, with masks, rectangles [n, H, W]."""
    generator = torch.Generator().manual_seed(work.seed + 1)
    targets = []
    for image in range(work.batch):
        sides = torch.empty(work.boxes, 2).uniform_(0.03, 0.5, generator=generator)
        corners = torch.rand(work.boxes, 2, generator=generator) * (1 - sides)
        boxes = torch.cat([corners + sides / 2, sides], dim=1)
        labels = torch.randint(1, 91, (work.boxes,), generator=generator)
        size = torch.tensor([work.height, work.width])
        target = {"labels": labels, "boxes": boxes, "image_id": torch.tensor([image])}
        target |= {"size": size, "orig_size": size, "iscrowd": torch.zeros(work.boxes, dtype=torch.int64)}
        target["area"] = sides.prod(1) * work.height * work.width
        if work.masks:
            target["masks"] = _rectangles(boxes, work.height, work.width)
        targets.append({name: value.to(work.device) for name, value in target.items()})
    return targets


def made_predictions(work: Work) -> list[dict[str, Tensor]]:
    """Random predictions of each decoder layer, the last layer first: logits [B, Q, C+1] and boxes [B, Q, 4]."""
    generator = torch.Generator().manual_seed(work.seed + 2)
    layers = []
    for _ in range(work.layers):
        logits = torch.randn(work.batch, work.queries, work.num_classes + 1, generator=generator)
        boxes = torch.empty(work.batch, work.queries, 4).uniform_(0.1, 0.4, generator=generator)
        layers.append({"pred_logits": logits.to(work.device), "pred_boxes": boxes.to(work.device)})
    return [{name: value.requires_grad_() for name, value in layer.items()} for layer in layers]


@torch.no_grad()
def set_norms(model: torch.nn.Module, seed: int = 0) -> None:
    """Give frozen norms statistics as after training, so that activations keep their size through all layers."""
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if hasattr(module, "running_var") and not isinstance(module, torch.nn.BatchNorm2d):
            for values, low, high in ((module.weight, 0.2, 0.4), (module.bias, -0.1, 0.1)):
                values.copy_(torch.empty(len(values)).uniform_(low, high, generator=generator))  # drawn on the CPU
            if name.endswith(("bn3", "downsample.1")):
                module.weight.mul_(0.5)


def synchronize(device: str) -> None:
    """Wait until the device has done all that it was asked to."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def repeated(work: Work, step: Callable[[], Any]) -> list[float]:
    """Seconds of each repetition of `step`, after the warm-up."""
    seconds = []
    for _ in range(work.warmup):
        step()
    synchronize(work.device)
    for _ in range(work.repeats):
        start = time.perf_counter()
        step()
        synchronize(work.device)
        seconds.append(time.perf_counter() - start)
    return seconds


def autocast(work: Work) -> Any:
    """The context of mixed precision that `work.amp` names."""
    types = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(work.device.split(":")[0], types[work.amp], enabled=work.amp != "none")


def peak_memory(device: str) -> int:
    """Bytes: the most that this process ever held; on CUDA, the most that its tensors held on the device."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    try:  # not `ru_maxrss`, which begins with what the parent process held
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def numbers_of(*tensors: Tensor) -> list[float]:
    """A few numbers that stand for tensors, to compare the results of two contestants."""
    return [value for t in tensors for value in (t.double().abs().mean().item(), t.double().flatten()[-1].item())]


@contextmanager
def counted_waits(work: Work) -> Iterator[list[str]]:
    """Context that yields a list of all places inside it where the host waits for a CUDA device; empty elsewhere."""
    found: list[str] = []
    if not work.device.startswith("cuda"):
        yield found
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    told = (w for w in caught if "synchroniz" in str(w.message))
    found += [f"{Path(w.filename).name}:{w.lineno}" for w in told if "Prototype" not in str(w.message)]


Task = Callable[[Work], tuple[list[float], list[float]]]


def do_work(*tasks: Task, **details: Any) -> None:
    """Do the work of the command line and report it.

    Args:
        tasks: by their names; each returns (seconds of each repetition, numbers that stand for the result).
        details: see `report`.
    """
    work = read_work()
    with counted_waits(work) as waits:
        seconds, check = {task.__name__: task for task in tasks}[work.task](work)
    report(work, seconds, check, waits, **details)


def report(
    work: Work,
    seconds: list[float],
    check: Sequence[float] = (),
    waits: Sequence[str] = (),
    values: Mapping[str, float] | None = None,
    **details: Any,
) -> None:
    """Print the result as one line, where `rounds.run_fresh` reads it."""
    device = torch.cuda.get_device_name() if work.device.startswith("cuda") else work.device
    details |= {"device": device, "torch": torch.__version__, "threads": torch.get_num_threads()}
    result = {"seconds": seconds, "peak": peak_memory(work.device), "check": list(check), "details": details}
    numbers = {**(values or {}), **({"waits": len(waits)} if waits else {})}
    print(json.dumps({**result, "values": numbers}))


def _rectangles(boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes [n, 4] → their areas as masks, bool [n, H, W]."""
    x, y, w, h = (boxes * torch.tensor([width, height, width, height])).unbind(1)
    columns, rows = torch.arange(width)[None, None], torch.arange(height)[None, :, None]
    inside_x = (columns >= (x - w / 2)[:, None, None]) & (columns < (x + w / 2)[:, None, None])
    inside_y = (rows >= (y - h / 2)[:, None, None]) & (rows < (y + h / 2)[:, None, None])
    return inside_x & inside_y
