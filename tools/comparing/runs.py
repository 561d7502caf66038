"""What is known of a run: from its folder, from one of its checkpoints, or from the folder of an evaluation."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.classes import plain_name
from util.checkpoint import CheckpointError, load_checkpoint
from util.errors import one_sentence
from util.files import is_count, is_number
from util.loading.class_thresholds import is_thresholds
from util.loading.json_text import read_json
from util.loading.transfer import is_address
from util.pictures.run_log import COCO_PLACES, Log, curves_of, read_log

CHECKPOINTS = ("checkpoint.pth", "checkpoint_best.pth")
LOG, PER_CLASS, RUN = "log.txt", Path("eval", "per_class.json"), Path("eval", "run.json")
Curve = dict[float, float]  # epoch → value

# Name here → (part of the log, field, name within it)
SCORES = {
    "PQ": ("test", "PQ_all", ".pq"),
    "PQ things": ("test", "PQ_th", ".pq"),
    "PQ stuff": ("test", "PQ_st", ".pq"),
    **{f"mask {name}": ("test", "coco_eval_masks", name) for name in ("AP", "AP50", "AP75")},
    **{name: ("test", "coco_eval_bbox", name) for name in COCO_PLACES},
    "test loss": ("test", "loss", ""),
    "train loss": ("train", "loss", ""),
    "class error": ("test", "class_error", ""),
    "learning rate": ("train", "lr", ""),
}
DECIDING = ("PQ", "mask AP", "AP")  # the first that a run has decides which of its checkpoints is the best


@dataclass
class Run:
    """One run.

    Attributes:
        source: as the user names it.
        settings: of its checkpoint; empty if unknown.
        entries: the checkpoint's other entries that are compared.
        curves: name of `SCORES` → values over the epochs; an evaluation without a known epoch is at -1.
        classes: key → name, AP and F1 of each class at the last evaluation, as far as they are known.
        classes_epoch: the epoch of that evaluation.
        evaluated: number and fingerprint of the images of that evaluation, as far as they are known.
        notes: what is missing, one clause each.
        log, log_path: the lines of its log that are used, and where they come from.
        is_folder: the source is a folder, not one checkpoint.
    """

    source: str
    settings: dict[str, Any] = field(default_factory=dict)
    entries: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    classes: dict[Any, dict[str, Any]] = field(default_factory=dict)
    classes_epoch: int | None = None
    evaluated: tuple[int, str] | None = None
    notes: list[str] = field(default_factory=list)
    log: Log = field(default_factory=list)
    log_path: Path = Path(LOG)
    is_folder: bool = True

    @property
    def deciding(self) -> str | None:
        """The score that tells which epoch is the best; None before the first evaluation."""
        return next((name for name in DECIDING if self.curves.get(name)), None)

    @property
    def best_epoch(self) -> float | None:
        """The epoch of the best evaluation, the first of several; None before the first evaluation."""
        curve = self.curves.get(self.deciding or "", {})
        return max(sorted(curve), key=curve.get) if curve else None

    @property
    def last_epoch(self) -> float | None:
        """The last epoch of which anything is known, counted from 0."""
        epochs = [epoch for curve in self.curves.values() for epoch in curve]
        saved = self.entries.get("epoch")
        return max([*epochs, *([saved] if is_number(saved) else [])], default=None)

    def state(self) -> str:
        """How far it is: `10 of 10 epochs`."""
        last, planned = self.last_epoch, self.settings.get("epochs")
        if last is None or last < 0:
            return "an evaluation" if last == -1 and self.curves else "not one epoch"
        done = int(last) + 1
        if not is_count(planned):
            return f"{done} epoch{'s' * (done > 1)}"
        said = f"{done} of {planned} epoch{'s' * (planned > 1)}"
        if not self.is_folder or done >= planned:
            return said
        return f"{said}, {self._end() or 'unfinished'}"

    def _end(self) -> str:
        """Why it ended before its last epoch; empty if it did not."""
        limits = {"early_stop": "waited", "max_steps": "step"}
        for setting, entry in limits.items():
            limit, reached = self.settings.get(setting), self.entries.get(entry)
            if is_count(limit) and is_count(reached) and 0 < limit <= reached:
                return f"ended by --{setting}"
        return ""


def read_run(source: str) -> Run:
    """A run: its folder, or one of its checkpoints (a file or an http(s) address), of which nothing later is used.

    Raises:
        ValueError, CheckpointError: there is nothing of a run at `source`.
    """
    path = Path(source)
    if is_address(source) or path.is_file():
        return _of_checkpoint(source)
    if not path.is_dir():
        raise ValueError(f"there is no run {source}: pass the output folder of a run, or a checkpoint")
    run = Run(source)
    found = [name for name in (*CHECKPOINTS, *_kept(path)) if (path / name).is_file()]
    for name in found:
        try:
            _add_checkpoint(run, load_checkpoint(path / name))
            break
        except CheckpointError as error:
            run.notes.append(one_sentence(error))
    log = _log_of(path, run)
    _add_curves(run, log or _saved_record(run), path / LOG)
    _add_classes(run, path, any_epoch=True)
    if not (found or log or run.classes):
        raise ValueError(
            f"{source} holds no run, neither {LOG} nor a checkpoint nor {PER_CLASS.as_posix()}: pass the --output_dir "
            "of a run, or a checkpoint"
        )
    if not run.settings:
        run.notes.append("its settings are unknown, since there is no checkpoint that has them")
    if not run.deciding:
        run.notes.append("it was not evaluated yet")
    return run


def _of_checkpoint(source: str) -> Run:
    run = Run(source, is_folder=False)
    _add_checkpoint(run, load_checkpoint(source))
    epoch, record = run.entries.get("epoch"), run.entries.get("record")
    folder = Path(source).parent
    log = [] if is_address(source) else _log_of(folder, Run(source))
    own = [line for line in log if is_number(epoch) and is_number(line.get("epoch")) and line["epoch"] <= epoch]
    if record is not None and record not in own:  # a log of another run
        own = []
    _add_curves(run, own or _saved_record(run), folder / LOG)
    if own and not is_address(source):
        _add_classes(run, folder, any_epoch=False)
    if not run.settings:
        run.notes.append("its settings are unknown, since the file does not have them")
    if not run.deciding:
        run.notes.append("no evaluation of it is known")
    return run


def _kept(folder: Path) -> list[str]:
    return sorted((path.name for path in folder.glob("checkpoint[0-9]*.pth")), reverse=True)


def _log_of(folder: Path, run: Run) -> Log:
    if not (folder / LOG).is_file():
        return []
    try:
        log = read_log(folder / LOG)
    except (ValueError, OSError) as error:
        run.notes.append(one_sentence(error))
        return []
    return log


def _saved_record(run: Run) -> Log:
    record = run.entries.get("record")
    return [record] if isinstance(record, dict) else []


def _add_checkpoint(run: Run, checkpoint: Mapping[str, Any]) -> None:
    if not checkpoint.get("model"):
        raise CheckpointError(f"{run.source} has no weights under `model`: pass the checkpoint of a run")
    run.settings = dict(checkpoint.get("args") or {})
    wanted = ("epoch", "step", "record", "data", "categories", "versions", "world_size", "thresholds", "waited")
    run.entries = {name: checkpoint[name] for name in wanted if checkpoint.get(name) is not None}
    names = {category["id"]: category["name"] for category in run.entries.get("categories", ())}
    found = run.entries.get("thresholds")
    if is_thresholds(found):
        ones = [one for one in found["classes"] if is_number(one.get("f1"))]
        for key, one in zip(_keys([(one["id"], names.get(one["id"], "")) for one in ones]), ones):
            run.classes[key] = {"name": names.get(one["id"], f"class {one['id']}"), "F1": float(one["f1"])}
        run.classes_epoch = run.entries.get("epoch")


def _add_curves(run: Run, log: Log, path: Path) -> None:
    run.log, run.log_path = log, path
    cached: dict[tuple[str, str], dict[str, Any]] = {}
    for name, (split, entry, part) in SCORES.items():
        if (split, entry) not in cached:
            cached[split, entry] = curves_of(log, split, entry, path)
        epochs, values = cached[split, entry].get(part, ([], []))
        if epochs:
            run.curves[name] = dict(zip(epochs, values))


def _add_classes(run: Run, folder: Path, *, any_epoch: bool) -> None:
    """What the last evaluation in the folder says; unless `any_epoch`, only if it is that of the checkpoint."""
    path = folder / PER_CLASS
    if not os.path.lexists(path):
        return
    try:
        found = read_json(path)
        rows = [row for row in found["per_class"] if is_count(row["id"]) and isinstance(row["name"], str)]
        epoch, numbers = found.get("epoch"), dict(found.get("numbers") or {})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        run.notes.append(f"{path} cannot be used ({type(error).__name__})")
        return
    if not any_epoch and epoch != run.entries.get("epoch"):
        return
    run.evaluated = _evaluated(folder / RUN)
    if run.classes_epoch != epoch:
        run.classes = {}
    run.classes_epoch = epoch if is_count(epoch) else None
    for key, row in zip(_keys([(row["id"], row["name"]) for row in rows]), rows):
        if is_number(row.get("AP")) and 0 <= row["AP"] <= 1:  # -1: no object in the evaluated images
            run.classes[key] = {**run.classes.get(key, {}), "name": row["name"], "AP": float(row["AP"])}
    if not run.curves:  # the folder of an evaluation alone
        at = run.classes_epoch if run.classes_epoch is not None else -1
        usable = {name: numbers.get(name) for name in COCO_PLACES}
        run.curves = {n: {at: float(v)} for n, v in usable.items() if is_number(v) and math.isfinite(v) and v >= 0}


def _evaluated(path: Path) -> tuple[int, str] | None:
    """What the record of a run says about the images of its last evaluation; None if it says nothing."""
    try:
        images = read_json(path)["data"]["val"]
        found = images["images"], images["fingerprint"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if is_count(found[0]) and isinstance(found[1], str) and found[1] else None


def _keys(classes: Sequence[tuple[int, str]]) -> list[Any]:
    """What tells each class (id, name) apart from the others, and finds it in another run: its name, else its id."""
    plain = [plain_name(name) for _, name in classes]
    counts = Counter(plain)
    return [name if name and counts[name] == 1 else number for (number, _), name in zip(classes, plain)]


def short_names(sources: Sequence[str]) -> list[str]:
    """A short name for each run, as different as the sources allow: their last parts that differ."""
    parts = [[part for part in Path(os.path.abspath(source)).parts if part != os.sep] for source in sources]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(set(sources)):
            return names
    return list(sources)
