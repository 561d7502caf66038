"""`--overfit N`: can the settings learn N pictures by heart? If they cannot, the likeliest cause.

Nothing is saved that a training could resume: the files are in `OUTPUT_DIR/overfit/`, and no checkpoint is among them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from datasets.loader import build_data_loader, set_epoch
from engine import Monitor, Window, train_one_epoch
from training.diagnosis.causes import (
    FEW_STEPS,
    RATE_HIGH,
    Cause,
    Evidence,
    Trial,
    find_causes,
    find_oddities,
    otherwise,
)
from training.diagnosis.evidence import (
    Found,
    copy_of_weights,
    look_at_data,
    look_at_detections,
    mean_of_last,
    random_frozen_parts,
    relative_changes,
)
from training.diagnosis.few_pictures import announce
from training.optim import build_lr_scheduler, build_optimizer
from training.start import Data, Start
from training.validation import Validation, loading
from util.compute.accumulation import StepLoader
from util.errors import one_sentence
from util.files import write_json
from util.logging import get_logger
from util.meters import MetricLogger

PASSED = 0.9  # AP50 to exceed
STEPS = 1000  # limit without --max_steps
EVALUATIONS = 20  # in that time
WARM_UP = 0.1  # largest share of the steps
RESULT = "overfit.json"
TRIAL_STEPS = (10, 60)  # fewest and most of a trial of other learning rates
TRIAL_TIME = 0.5, 120.0  # of the run's own time for all trials together; at least so many seconds
SMALLEST_RATE, LARGEST_RATE = 1e-7, 1e-3  # tried downwards, upwards
CONFIDENT = 0.3  # score of detections whose class tells something


class OverfitFailed(Exception):  # noqa: N818 (it is an outcome, not an error)
    """The pictures were not learned; the message is the final sentence.

    Attributes:
        result: the content of `overfit.json`.
    """

    def __init__(self, sentence: str, result: dict[str, Any]) -> None:
        super().__init__(sentence)
        self.result = result


class TimeIsUp(Exception):  # noqa: N818
    """The limit in minutes is reached."""


class LossCourse(Monitor):
    """Keeps the loss of each step; raises TimeIsUp after a step that ends past the deadline."""

    def __init__(self, deadline: float) -> None:
        self.deadline, self.losses = deadline, list[float]()

    def observe(
        self, step: int, values: Mapping[str, float], optimizer: torch.optim.Optimizer, meters: MetricLogger
    ) -> None:
        self.losses.append(values["loss"])

    def respond(self, requested: set[str], step: int | None = None, meters: MetricLogger | None = None) -> None:
        if step is not None and time.monotonic() > self.deadline:
            raise TimeIsUp


class Rounds:
    """Several epochs of a loader in a row, as one loop, and then the next ones; each has its own order."""

    def __init__(self, loader: DataLoader | StepLoader, epochs: int) -> None:
        self.loader, self.epochs, self.next_epoch = loader, epochs, 0

    def __len__(self) -> int:
        return self.epochs * len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.epochs):
            set_epoch(self.loader, self.next_epoch)
            self.next_epoch += 1
            yield from self.loader


class OverfitTest:
    """Trains and evaluates on the same few pictures until AP50 exceeds `PASSED`, or a limit is reached.

    The learning rates rise during `--warmup_steps`, at most a tenth of the limit, and fall to 0 at the limit, by half a
    cosine. All other settings are those of the run, except for `few_pictures.overfit_settings`.

    Args:
        start, data: of the run; both parts of the data are the `FewPictures`.
        model: the model itself, with the weights that the run starts from.
        validation: evaluates it.
    """

    def __init__(self, start: Start, data: Data, model: nn.Module, validation: Validation) -> None:
        self.args, self.folder, self.validation, self.model = data.args, start.folder, validation, model
        self.few, self.has_detector = data.val, bool(start.initial or start.frozen)
        args = self.args
        self.device = torch.device(args.device)
        batches = build_data_loader(self.few, args.batch_size, train=True, **loading(args))
        self.loader = StepLoader(batches, args.accumulate) if args.accumulate > 1 else batches
        self.limit = args.max_steps or STEPS
        self.evidence = Evidence(
            args.num_queries,
            args.lr,
            args.lr_backbone,
            args.val_size,
            names={category["id"]: category["name"] for category in data.categories},
        )
        self.steps, self.best, self.evaluated = 0, 0.0, False

    def run(self) -> dict[str, Any]:
        """Train, evaluate, explain; writes `overfit.json`, `log.txt` and `eval/` to the folder.

        Returns:
            The content of `overfit.json`.

        Raises:
            OverfitFailed: AP50 did not exceed `PASSED`.
            ValueError, OSError: data that cannot be used, or a file that cannot be written.
        """
        announce(self.args, self.few)
        self.folder.begin()
        started = time.monotonic()
        self.evidence.data = look_at_data(self.few)
        self.evidence.frozen = random_frozen_parts(self.model)
        self.before = copy_of_weights(self.model)
        if self.has_detector:
            self._run_validation()
            self.evidence.found_before = self._found()
            for oddity in find_oddities(self.evidence):
                get_logger().warning(f"before the first step: {oddity.sentence}")
        stopped = self._train(started + 60 * self.args.overfit_minutes)
        seconds = time.monotonic() - started
        if self.best > PASSED:
            return self._conclude("", [], seconds)
        self.evidence.steps = self.steps
        self.evidence.changes = relative_changes(self.model, self.before) if self.steps else {}
        causes = find_causes(self.evidence)
        if all(cause.name == RATE_HIGH for cause in causes):
            self.evidence.trials = self._try_other_rates(time.monotonic() + max(TRIAL_TIME[0] * seconds, TRIAL_TIME[1]))
            causes = find_causes(self.evidence)
        return self._conclude(stopped, causes or [otherwise(self.evidence)], seconds)

    def _train(self, deadline: float) -> str:
        """Train until the pictures are learned or a limit is reached; what ended it early, empty if nothing did."""
        course, stopped = LossCourse(deadline), ""
        self.evidence.losses = course.losses
        optimizer, scheduler = self._optimizer(1.0)
        rounds = Rounds(self.loader, max(1, round(self.limit / EVALUATIONS / len(self.loader))))
        try:
            while self.steps < self.limit and self.best <= PASSED and not stopped:
                try:
                    stats = self._train_round(rounds, optimizer, scheduler, course, self.limit - self.steps)
                except TimeIsUp:
                    stats = {"loss": mean_of_last(course.losses, len(rounds))}
                    stopped = f"--overfit_minutes {self.args.overfit_minutes:g} were over"
                self.steps = len(course.losses)
                self._evaluate(rounds.next_epoch - 1, stats)
        except FloatingPointError as error:
            self.steps = len(course.losses)
            self.evidence.fault, stopped = one_sentence(error), "a number was not finite"
        return stopped

    def _train_round(
        self, rounds: Rounds, optimizer: torch.optim.Optimizer, scheduler: LRScheduler, course: LossCourse, limit: int
    ) -> dict[str, float]:
        """Train the next epochs of `rounds`, `limit` steps at most; the averages of the meters."""
        return train_one_epoch(
            self.validation.model,
            self.validation.criterion,
            rounds,
            optimizer,
            self.device,
            rounds.next_epoch,
            self.args.clip_max_norm,
            lr_scheduler=scheduler,
            window=Window(stop=min(limit, len(rounds))),
            print_freq=len(rounds) + 1,
            monitor=course,
            precision=self.validation.precision,
        )

    def _evaluate(self, epoch: int, train: Mapping[str, float]) -> None:
        """Evaluate, and log the step's line."""
        test = self._run_validation()
        self.evidence.found = self._found()
        kind = "coco_eval_masks" if self.args.frozen_weights else "coco_eval_bbox"
        ap50 = float(test[kind][1])
        self.best = max(self.best, ap50)
        record = {f"train_{name}": value for name, value in train.items()}
        record |= {f"test_{name}": value for name, value in test.items()}
        self.folder.log(record | {"epoch": epoch, "step": self.steps})
        at = f"step {self.steps:,} of {self.limit:,}"
        get_logger().info(f"overfit: {at}: AP50 {ap50:.3f} on the same pictures, loss {train['loss']:.3g}")

    def _run_validation(self) -> dict[str, Any]:
        """The results of an evaluation; until it has finished there is nothing to report."""
        self.evaluated = False
        results = self.validation.run()
        self.evaluated = True
        return results

    def _found(self) -> Found:
        """What the confident detections of the last evaluation have found."""
        annotations = [annotation for image_id in self.few.ids for annotation in self.few.coco.imgToAnns[image_id]]
        return look_at_detections(self.validation.evaluation.coco.all_detections.rows, annotations, CONFIDENT)

    def _optimizer(self, factor: float) -> tuple[torch.optim.Optimizer, LRScheduler]:
        """The optimizer and the schedule, with all learning rates multiplied by `factor`."""
        args = self.args
        changed = args.replace(
            lr=args.lr * factor,
            lr_backbone=args.lr_backbone * factor,
            lr_schedule="cosine",
            warmup_steps=min(args.warmup_steps, int(WARM_UP * self.limit)),
            epochs=math.ceil(self.limit / len(self.loader)),
            max_steps=self.limit,
        )
        optimizer = build_optimizer(self.model, changed)
        return optimizer, build_lr_scheduler(optimizer, changed, len(self.loader))[0]

    def _try_other_rates(self, deadline: float) -> list[Trial]:
        """A few steps from the same weights with lower and with higher learning rates.

        A direction is followed as long as the loss falls. Higher rates have to reach a lower loss than the whole run,
        so they are tried after long runs only. Empty if the run was too short to compare with.
        """
        losses, trials = self.evidence.losses, list[Trial]()
        fewest, most = TRIAL_STEPS
        if len(losses) < fewest and not self.evidence.fault:
            return []
        steps = min(most, max(fewest, len(losses)), self.limit)
        get_logger().info(f"overfit: AP50 {self.best:.3f}; trying {steps} steps with other learning rates")
        for upwards in (False, True) if len(losses) >= FEW_STEPS else (False,):
            best = math.inf
            for rate in _rates(self.args.lr, upwards):
                factor = rate / self.args.lr
                course = self._try_rate(factor, steps, deadline)
                if len(course) < steps and time.monotonic() > deadline:
                    return trials
                loss = mean_of_last(course, tail(steps)) if len(course) == steps else math.inf
                trials.append(Trial(factor, steps, loss, self._usual_loss(steps, upwards)))
                if loss >= best and math.isfinite(loss):
                    break
                best = min(best, loss)
            if any(trial.is_better for trial in trials):
                break
        return trials

    def _usual_loss(self, steps: int, upwards: bool) -> float:
        """The loss that a trial has to beat: after the same steps and at the end, or, with higher rates, at the end."""
        losses = self.evidence.losses
        if self.evidence.fault:
            return math.inf
        end = mean_of_last(losses, max(tail(steps), len(losses) // 20))
        return end if upwards else min(end, mean_of_last(losses[:steps], tail(steps)))

    def _try_rate(self, factor: float, steps: int, deadline: float) -> list[float]:
        """The losses of the first steps with other rates; fewer of them after a fault, or when the time is up."""
        self.model.load_state_dict(self.before)
        course = LossCourse(deadline)
        optimizer, scheduler = self._optimizer(factor)
        rounds = Rounds(self.loader, math.ceil(steps / len(self.loader)))
        try:
            self._train_round(rounds, optimizer, scheduler, course, steps)
        except (FloatingPointError, TimeIsUp):
            pass
        return course.losses

    def _conclude(self, stopped: str, causes: Sequence[Cause], seconds: float) -> dict[str, Any]:
        """Write the files, and say or raise the final sentence."""
        if self.evaluated:
            self.validation.report(None)
        passed = not causes
        noticed = find_oddities(self.evidence) if passed else []
        sentence = (
            f"overfit {'passed' if passed else 'failed'}: AP50 {self.best:.3f} on {len(self.few)} "
            f"picture{'s' * (len(self.few) != 1)} after {self.steps:,} step{'s' * (self.steps != 1)}"
        )
        if stopped:
            sentence += f" ({stopped})"
        if causes:
            sentence += f"; likeliest cause [{causes[0].name}]: {causes[0].sentence}"
        result = {
            "passed": passed,
            "ap50": self.best,
            "steps": self.steps,
            "seconds": round(seconds, 1),
            "image_ids": self.few.ids,
            "cause": causes[0].name if causes else None,
            "causes": [cause._asdict() for cause in causes],
            "noticed": [oddity._asdict() for oddity in noticed],
            "sentence": sentence,
        }
        if self.folder.writes:
            write_json(self.folder.path / RESULT, result)
        for cause in causes[1:]:
            get_logger().info(f"overfit: also seen [{cause.name}]: {cause.sentence}")
        for oddity in noticed:
            get_logger().warning(f"the pictures were learned, but [{oddity.name}]: {oddity.sentence}")
        get_logger().info(sentence)
        if not passed:
            raise OverfitFailed(sentence, result)
        return result


def _rates(lr: float, upwards: bool) -> list[float]:
    """The learning rates to try instead of `lr`, the nearest first."""
    if upwards:
        return [lr * factor for factor in (10, 100, 1000) if lr * factor <= LARGEST_RATE]
    lower = (min(lr / 10, 1e-3), min(lr / 100, 1e-4), min(lr / 1000, 1e-5))
    return [rate for rate in lower if rate >= SMALLEST_RATE]


def tail(steps: int) -> int:
    """How many of the last steps of a trial are averaged."""
    return max(1, steps // 4)
