"""Training steps whose waits for the device are counted: `python -m tests.helpers.device.steps FOLDER`.

Prints {scenario: {"steps": number, "batches": number, "found": [waits], "told": [warnings], "loss": number}} as JSON.
Without `--device`, on the pretended device; with `--device cuda`, on a real one, where torch's own watch over
synchronizations is asked as well: `told` are its warnings.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import torch
from torch import Tensor

import engine
from datasets import build_dataset
from datasets.loader import build_data_loader
from engine import Window, train_one_epoch
from models import build_model
from tests.helpers.device.waits import Waits
from tests.helpers.runs import parse
from training.average import WeightAverage
from training.optim import build_lr_scheduler, build_optimizer
from util.compute.accumulation import StepLoader
from util.compute.precision import Precision
from util.meters import MetricLogger

Hook = Callable[..., None]
STEPS = 2
MASKS = ("--masks", "--hidden_dim", "128", "--nheads", "8")
OTHER_PARTS = ("--pre_norm", "--position_embedding", "learned", "--backbone_norm", "bn", "--dropout", "0.1")
SCENARIOS: dict[str, tuple[str, ...]] = {
    "boxes": (),
    "masks": MASKS,
    "other parts": OTHER_PARTS,
    "bf16": ("--amp", "bf16"),
    "bf16 masks": (*MASKS, "--amp", "bf16"),
    "fp16": ("--amp", "fp16"),
    "average": ("--ema", "0.99"),
    "recomputed": ("--checkpoint_activations",),
    "parts": ("--batch_size", "2", "--accumulate", "2"),
    "masks in parts": (*MASKS, "--batch_size", "2", "--accumulate", "2"),
}


def plants(parts: dict[str, Any]) -> dict[str, tuple[Callable[[Hook], Any], Callable[[], Any]]]:
    """Waits to add to each step: name → (the place that takes a hook, what the hook does)."""
    model, criterion, optimizer = parts["model"], parts["criterion"], parts["optimizer"]
    weight = model.class_embed.weight
    return {
        "item in the model": (model.register_forward_hook, lambda: weight.sum().item()),
        "mask in the model": (model.register_forward_hook, lambda: weight[weight > 0]),
        "masked_select in the model": (
            model.register_forward_hook,
            lambda: weight.masked_select(weight > 0),
        ),
        "nonzero in the matcher": (criterion.matcher.register_forward_hook, weight.nonzero),
        "bool in the criterion": (criterion.register_forward_hook, lambda: bool(weight.sum() > 0)),
        "copy in the criterion": (criterion.register_forward_hook, lambda: torch.ones(3).to(weight.device)),
        "item in the backward": (weight.register_hook, lambda: weight.max().item()),
        "cpu in the clipping": (_after(torch.nn.utils, "clip_grads_with_norm_"), weight.cpu),
        "float in the optimizer": (optimizer.register_step_post_hook, lambda: float(weight.sum())),
        "tolist in the meters": (_after(MetricLogger, "update"), weight.tolist),
        "copy in the monitor": (_after(engine.Monitor, "observe"), lambda: weight.to("cpu", non_blocking=True)),
    }


def _after(owner: Any, method: str) -> Callable[[Hook], Any]:
    """A place for a hook: after each call of a function or method, for the rest of the process or until `stopall`."""
    original = getattr(owner, method)

    def register(hook: Hook) -> None:
        def both(*args: Any, **options: Any) -> Any:
            result = original(*args, **options)
            hook()
            return result

        patch.object(owner, method, both).start()

    return register


def count(data: Path, device: torch.device, flags: tuple[str, ...], planted: str | None = None) -> dict[str, Any]:
    """The waits of steps of `train_one_epoch` with clipping and a schedule, on `device`."""
    torch.manual_seed(0)
    args = parse(data, "--num_classes", "4", "--lr_schedule", "cosine", *flags)
    model, criterion, _ = build_model(args)
    loader = build_data_loader(build_dataset("train", args), args.batch_size, train=True)
    loader = StepLoader(loader, args.accumulate) if args.accumulate > 1 else loader
    precision = Precision(args.amp, device)
    pretended = device.type == "pretended"
    if pretended:
        from tests.helpers.device.pretend import to_pretended_device

        to_pretended_device(model), to_pretended_device(criterion)
        if precision.dtype is not None:  # a device in Python has no autocast: only the outputs are in half types
            model.register_forward_hook(lambda *call: _in_half_type(call[-1], precision.dtype))
            precision.autocast = Precision().autocast
    else:
        model.to(device), criterion.to(device)
    optimizer = build_optimizer(model, args)
    for group in optimizer.param_groups:
        group["fused"] = True  # as on cuda
    if args.ema:
        average = WeightAverage(model, args.ema)
        optimizer.register_step_post_hook(lambda *_: average.update())
    scheduler, _ = build_lr_scheduler(optimizer, args, len(loader))
    steps = STEPS
    if planted is not None:
        steps = 1
        place, wait = plants({"model": model, "criterion": criterion, "optimizer": optimizer})[planted]
        place(lambda *call: _nothing(wait()))
    watched = device.type == "cuda"
    if watched:
        torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught, Waits() as waits:
            warnings.simplefilter("always")
            stats = train_one_epoch(
                model,
                criterion,
                loader,
                optimizer,
                device,
                0,
                0.1,
                lr_scheduler=scheduler,
                window=Window(stop=steps),
                precision=precision,
            )
    finally:
        if watched:
            torch.cuda.set_sync_debug_mode("default")
        patch.stopall()
    told = [str(w.message).splitlines()[0] for w in caught if "synchroniz" in str(w.message)]
    return {
        "steps": steps,
        "batches": steps * args.accumulate,
        "found": waits.found,
        "told": told,
        "loss": stats["loss"],
    }


def _nothing(_: Any) -> None:
    """Hooks that return something change what they are hooked to."""


def _in_half_type(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype)
    if isinstance(value, dict):
        return {name: _in_half_type(part, dtype) for name, part in value.items()}
    return [_in_half_type(part, dtype) for part in value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of drawn shapes")
    parser.add_argument("--device", default="pretended")
    parser.add_argument("--scenarios", nargs="*", default=[*SCENARIOS])
    parser.add_argument("--plants", nargs="*", help="default: all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    if args.device == "pretended":
        from tests.helpers.device.pretend import DEVICE, PretendedDevice

        with PretendedDevice():
            results = run(args, DEVICE)
    else:
        results = run(args, torch.device(args.device))
    print(json.dumps(results))


def run(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The waits of each scenario, and of the first one with each planted wait."""
    results = {name: count(args.data, device, SCENARIOS[name]) for name in args.scenarios}
    names = (
        plants(dict.fromkeys(("model", "criterion", "optimizer"), MagicMock())) if args.plants is None else args.plants
    )
    return results | {name: count(args.data, device, (), name) for name in names}


if __name__ == "__main__":
    main()
