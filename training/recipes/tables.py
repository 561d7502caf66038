"""The recipes: what each sets, and why. `training.recipes.follow` says what is set, and lets the user's flags win.

Counts come from the run: `Run` says how many pictures, steps and objects there are. A recipe gives (settings, planned
epochs) for such a run; a setting that it does not name keeps the published default or, of a run that starts from a
detector, that detector's value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.advice import PUBLISHED_WEIGHTS, TINY_WEIGHTS
from training.recipes.facts import DataFacts
from util.settings import MAX_SIDE

# small: a small detector, which trains without a GPU
SHIPPED = Path(__file__).resolve().parents[2] / TINY_WEIGHTS
SMALL_NETWORK = {  # of the shipped detector
    "backbone": "tiny",
    "dilation": True,
    "backbone_norm": "bn",
    "hidden_dim": 128,
    "dim_feedforward": 512,
    "enc_layers": 2,
    "dec_layers": 3,
    "nheads": 8,
    "position_embedding": "sine",
    "pos_temperature": 20.0,
    "pre_norm": False,
}
SMALL = {
    "trainable_layers": 5,
    "lr": 4e-4,
    "lr_backbone": 4e-4,
    "lr_schedule": "cosine",
    "dropout": 0.0,
    "bbox_loss_coef": 2.5,
    "giou_loss_coef": 1.0,
    "eos_coef": 0.2,
}
SMALL_BATCH = 8
SMALL_EPOCHS = 2000  # over the root of the number of pictures: 140 epochs of 200 pictures, 63 of 1,000
SMALL_PIXELS = 24  # of the small boxes, those at the 5th percentile, on a side
SMALL_SIZES = (160, 256)

# small, for a dozen pictures or fewer: learning them by heart, as a check that they can be learned. All steps see the
# same views, at a high learning rate, in minutes. There are few more queries than objects. Larger views leave time for
# fewer steps and end with a lower AP50, with boxes of a few pixels too (docs/results.md).
BY_HEART = 12  # pictures
HEART = {"lr": 1e-3, "lr_backbone": 1e-3, "no_crop": True, "no_flip": True}
HEART_SIZE = 160
HEART_STEPS = 480
HEART_EVALUATIONS = 8

# finetune: a full-size detector, on a GPU
FINETUNE = {"lr": 5e-5, "lr_backbone": 5e-6, "lr_schedule": "cosine"}
FINETUNE_BATCH = 4
PUBLISHED_QUERIES = 100
FINETUNE_EPOCHS = 1100  # over the root of the number of pictures: 78 epochs of 200 pictures, 35 of 1,000

LEAST_EPOCHS, LEAST_STEPS = 12, 300
EVALUATIONS = 20
WARMUP = 100  # steps, and an epoch at most
AVERAGE = 1 / 20  # of the steps are what the average spans
FROM_SCRATCH = 2  # times as many epochs


@dataclass(frozen=True)
class Run:
    """A run that a recipe is for.

    Attributes:
        facts: about its training pictures.
        named: the settings that the user names.
        processes: that share the images of an epoch.
        start: the settings of the detector that `--init_from` names, None without one.
        from_scratch: it starts without a detector.
        repeated: images that an epoch holds beyond the pictures (`--repeat_threshold`).
    """

    facts: DataFacts
    named: Mapping[str, Any]
    processes: int = 1
    start: Mapping[str, Any] | None = None
    from_scratch: bool = False
    repeated: int = 0

    def batch_size(self, usual: int) -> int:
        """That of the user, else the usual one or all images of a process, if they are fewer."""
        return self.named.get("batch_size", min(usual, self._share))

    @property
    def _share(self) -> int:
        return -(-(self.facts.pictures + self.repeated) // self.processes)

    def steps(self, usual_batch: int) -> int:
        """Of an epoch."""
        return max(1, self._share // (self.batch_size(usual_batch) * self.named.get("accumulate", 1)))


def small(run: Run) -> dict[str, Any]:
    """A small detector, from the shipped one: by heart for a dozen pictures or fewer."""
    facts, by_heart = run.facts, run.facts.pictures <= BY_HEART
    settings = dict(SMALL) | (HEART if by_heart else {})
    settings |= _small_start(run)
    if by_heart:
        settings["num_queries"] = 5 * math.ceil((facts.most_objects + 3) / 5)
        epochs = math.ceil(HEART_STEPS / run.steps(SMALL_BATCH))
        schedule = _schedule(epochs, LEAST_STEPS, SMALL_BATCH, HEART_EVALUATIONS, run)
        return settings | _sizes([HEART_SIZE], HEART_SIZE, run) | schedule
    settings["num_queries"] = 5 * math.ceil((1.5 * facts.most_objects + 5) / 5)
    size = size_for(facts)
    sizes = [round(size * (0.8 + 0.1 * step) / 16) * 16 for step in range(5)]
    schedule = _schedule(_epochs(SMALL_EPOCHS, run), LEAST_STEPS, SMALL_BATCH, EVALUATIONS, run)
    return settings | _sizes(sizes, size, run) | schedule


def _small_start(run: Run) -> dict[str, Any]:
    """What the weights come from: the user's checkpoint, nothing, or the shipped detector."""
    if run.start is not None:
        return {}
    if not run.from_scratch:
        return {"init_from": str(SHIPPED)}
    if run.named.get("backbone", "tiny") == "tiny":
        return SMALL_NETWORK | {"backbone_weights": "none"}
    # A backbone with ImageNet weights keeps its published norms and frozen layers, and learns a tenth as fast.
    network = {name: value for name, value in SMALL_NETWORK.items() if name not in ("dilation", "backbone_norm")}
    return network | {"trainable_layers": 3, "lr_backbone": SMALL["lr_backbone"] / 10}


def finetune(run: Run) -> dict[str, Any]:
    """A full-size detector, from the published one: its sizes, lower rates, a short schedule, new classes."""
    settings = dict(FINETUNE) | ({"init_from": PUBLISHED_WEIGHTS} if run.start is None else {})
    if run.facts.most_objects > (run.start or {}).get("num_queries", PUBLISHED_QUERIES):
        settings["num_queries"] = 5 * math.ceil(1.2 * run.facts.most_objects / 5)
    return settings | _schedule(_epochs(FINETUNE_EPOCHS, run), LEAST_STEPS, FINETUNE_BATCH, EVALUATIONS, run)


RECIPES: dict[str, Callable[[Run], dict[str, Any]]] = {"small": small, "finetune": finetune}


def size_for(facts: DataFacts) -> int:
    """The short side, a multiple of 32 in `SMALL_SIZES`, at which small boxes are about `SMALL_PIXELS` wide."""
    low, high = SMALL_SIZES
    small_side = facts.box_sides.get(5, 1.0)
    return min(max(32 * math.ceil(SMALL_PIXELS / small_side / 32 - 0.2), low), high)


def _sizes(train: list[int], val: int, run: Run) -> dict[str, Any]:
    """Sizes that fit together, also with those that the user names."""
    limit = run.named.get("max_size", MAX_SIDE)
    train, val = [min(size, limit) for size in train], min(val, limit)
    train, val = run.named.get("train_sizes", sorted(set(train))), run.named.get("val_size", val)
    longest = max(*train, val) * min(max(run.facts.elongation, 1.25), 2)
    return {"train_sizes": train, "val_size": val, "max_size": min(32 * math.ceil(longest / 32), MAX_SIDE)}


def _epochs(budget: int, run: Run) -> int:
    epochs = max(LEAST_EPOCHS, round(budget / math.sqrt(run.facts.pictures)))
    return epochs * (FROM_SCRATCH if run.from_scratch else 1)


def _schedule(epochs: int, least_steps: int, usual_batch: int, evaluations: int, run: Run) -> dict[str, Any]:
    """What depends on the number of steps: `epochs`, but at least `least_steps`, unless the user names the end."""
    steps = run.steps(usual_batch)
    planned = max(epochs, math.ceil(least_steps / steps))
    epochs = run.named.get("epochs", planned)
    total = min(epochs * steps, run.named.get("max_steps") or math.inf)
    return {
        "batch_size": run.batch_size(usual_batch),
        "epochs": planned,
        "warmup_steps": max(0, min(WARMUP, steps, total - 1)),
        "ema": max(0.0, 1 - float(f"{1 / max(1.0, AVERAGE * total):.2g}")),
        "eval_every": max(1, epochs // evaluations),
    }
