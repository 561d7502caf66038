"""A training run: epochs, evaluations and checkpoints, from wherever it starts to its last epoch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import torch
from torch import nn

from datasets.aspect_batches import aspect_ratios
from datasets.augment.rare_classes import find_repeats
from datasets.loader import build_data_loader, fingerprint, set_epoch
from engine import Window, train_one_epoch, trial_step
from evaluation.evaluation import score
from training.advice import more_objects_than_queries, too_few_steps, too_short_training
from training.average import WeightAverage
from training.diagnosis.low_ap import offer_overfit
from training.diagnosis.preflight import preflight
from training.diagnosis.saved_state import find_unusable_state
from training.diagnosis.worst_batch import objects_per_image, typical_batches, worst_batch
from training.monitor import Pace, RunMonitor
from training.optim import build_lr_scheduler, build_optimizer
from training.recipes.follow import PUBLISHED
from training.run_folder import BEST, CHECKPOINT
from training.start import Data, Start
from training.state import Position, TrainingResult, TrainingState
from training.tensorboard import TensorBoardWriter
from training.validation import Validation, loading
from util.compute.accumulation import StepLoader
from util.compute.compilation import compiled
from util.dist import get_world_size, is_main_process, run_on_main
from util.logging import get_logger
from util.meters import MetricLogger
from util.signals import StopRequested, StopSignals
from util.text import Lines


class Training:
    """One training run.

    Args:
        start: where it starts.
        data: its data sets and settled settings.
        model: the model itself, on its device, with the weights that the run starts from.
        validation: evaluates it, and holds the model as all processes run it.

    Raises:
        CheckpointError, ValueError: the training state of the checkpoint cannot be restored, or nothing is left to do.
    """

    def __init__(self, start: Start, data: Data, model: nn.Module, validation: Validation):
        self.args, self.folder, self.validation = data.args, start.folder, validation
        self.model, self.dataset = model, data.train
        args = self.args
        self.device = torch.device(args.device)
        aspects = aspect_ratios(data.train) if args.group_by_aspect else None
        self.repeats = None if args.overfit else find_repeats(data.train, args.repeat_threshold, args.seed)
        batches = build_data_loader(
            data.train, args.batch_size, train=True, aspects=aspects, repeats=self.repeats, **loading(args)
        )
        self.loader = StepLoader(batches, args.accumulate) if args.accumulate > 1 else batches
        self.optimizer = build_optimizer(model, args)
        self.lr_scheduler, self.per_step = build_lr_scheduler(self.optimizer, args, len(self.loader))
        self.average = WeightAverage(model, args.ema) if args.ema else None
        if self.average:
            self.averaged_model = compiled(self.average.model, args.compile)
            self.optimizer.register_step_post_hook(lambda *_: self.average.update())
        self.state = TrainingState(
            args,
            model,
            self.optimizer,
            self.lr_scheduler,
            precision=validation.precision,
            average=self.average,
            steps_per_epoch=len(self.loader),
            data=fingerprint(data.train),
            categories=data.categories,
            split=data.split.plain() if data.split else None,
        )
        validation.page.trains_on(data.train, self.state.data)
        checkpoint = start.checkpoint
        own_log = bool(checkpoint) and self.folder.owns(args.resume) and not args.overwrite
        if own_log:  # also if nothing is left to train
            self.folder.align_log(checkpoint.get("epoch", -1), checkpoint.get("record"), drop_later=False)
        self._record: dict[str, Any] = {}
        self.state.load_state_dict(checkpoint)
        self.losses: list[float] = []  # of each epoch, since this start
        self.last_test: dict[str, Any] = {}  # results of the last evaluation
        self.advise()
        self.folder.clean()
        if own_log:
            self.folder.align_log(self.state.position.epoch - 1, checkpoint.get("record"))
        else:
            self.folder.begin()
        if data.split:
            self.folder.write_split(data.split.plain())

    def advise(self) -> None:
        """Warn about likely poor results and, with `--preflight`, try the largest batch and forecast the run."""
        args, data, steps_taken = self.args, self.dataset, self.state.position.steps_taken
        steps = min(args.epochs * len(self.loader), args.max_steps or math.inf)
        found = (
            more_objects_than_queries(objects_per_image(data), args.num_queries, data.ids),
            too_short_training(
                steps,
                args.batch_size * args.accumulate * get_world_size(),
                len(data),
                backbone=args.backbone,
                lr=args.lr,
                from_scratch=not (args.resume or args.init_from or args.frozen_weights),
            ),
            too_few_steps(steps, len(data)) if args.init_from and args.recipe == PUBLISHED else None,
        )
        for warning in found:
            if warning and is_main_process():
                get_logger().warning(warning)
        if args.preflight:
            tried = self.validation.model if get_world_size() == 1 else self.model  # compiled, if the training is
            forecast = preflight(
                self.model,
                trial_step(tried, self.validation.criterion, self.device, self.validation.precision),
                worst_batch(data, args.batch_size, pad_multiple=args.pad_multiple, repeats=self.repeats),
                typical_batches(data, args.batch_size, 5, pad_multiple=args.pad_multiple),
                device=self.device,
                optimizer=self.optimizer,
                steps=steps - steps_taken,
                accumulate=args.accumulate,
            )
            get_logger().info(Lines(forecast))

    def fit(self) -> None:
        """Train the epochs that are left.

        Raises:
            FloatingPointError: a number is not finite; checkpoints are unchanged.
            StopRequested: a signal asked for a stop, and the state is saved.
            OSError: the last checkpoint or another file of the run could not be written.
        """
        args, first, log = self.args, self.state.position.epoch, get_logger()
        curves = f"{args.output_dir}/tensorboard" if args.tensorboard else None
        writer = TensorBoardWriter(curves, purge_step=self.state.position.steps_taken + 1)
        pace = Pace(first, self._epochs_left())
        steps = f"{len(self.loader)} step{'s' * (len(self.loader) != 1)} each"
        if args.max_steps is not None:
            steps += f", until step {args.max_steps:,}"
        log.info(f"start training: epochs {first} to {first + math.ceil(pace.total) - 1}, {steps}")
        with StopSignals() as signals, closing(writer):
            monitor = RunMonitor(
                signals,
                writer,
                self._save_now,
                lambda: self.state.position.epoch_start,
                every=args.print_freq,
                output_dir=args.output_dir,
            )
            for epoch in range(first, args.epochs):
                last = self._train_epoch(epoch, monitor)
                pace.log(epoch + 1, evaluated=last or (epoch + 1) % args.eval_every == 0)
                if last:
                    break
                if self.state.ends_early():
                    at = self.state.position
                    log.info(
                        f"--early_stop {args.early_stop}: the run ends after epoch {epoch}, since {at.waited} "
                        f"evaluations in a row were not better than the best one ({at.best_score:.4f})"
                    )
                    break
        log.info(f"Training time {pace.time()}")
        self._offer_diagnosis()
        if writer.failed:
            self.folder.faults["curves"] = writer.failed
        if self.folder.faults:
            raise OSError("; ".join(self.folder.faults.values()))

    def _offer_diagnosis(self) -> None:
        """After a run whose AP is near 0, say how to find the cause."""
        if is_main_process():
            offer = offer_overfit(self.args, self.model, self.dataset, self.validation, self.last_test, self.losses)
            if offer:
                get_logger().warning(offer)

    def result(self) -> TrainingResult:
        """What the run has reached, after `fit`."""
        at, folder = self.state.position, self.folder.path
        best, last = (folder / name if folder else None for name in (BEST, CHECKPOINT))
        return TrainingResult(
            folder,
            at.best_score,
            best if best and best.exists() else None,
            last if last and last.exists() else None,
            at.epoch,
            at.steps_taken,
            self._record,
        )

    def _epochs_left(self) -> float:
        """From the beginning of the current epoch; `--max_steps` may end the last one early."""
        args, at = self.args, self.state.position
        left = float(args.epochs - at.epoch)
        if args.max_steps is None:
            return left
        return min(left, (args.max_steps - at.epoch_start) / len(self.loader))

    def _train_epoch(self, epoch: int, monitor: RunMonitor) -> bool:
        """Train, evaluate where it is due, save; True after the last epoch."""
        args, position = self.args, self.state.position
        steps = len(self.loader) if args.max_steps is None else args.max_steps - position.epoch_start
        steps = min(steps, len(self.loader)) if position.train_stats is None else position.step
        taken = position.epoch_start + steps
        last = epoch + 1 == args.epochs or taken == args.max_steps

        stats = position.train_stats
        if stats is None:
            stats = self._train_steps(epoch, steps, monitor)
        self.state.position = Position(
            epoch, steps, taken, position.best_score, train_stats=stats, waited=position.waited
        )
        evaluates = last or (epoch + 1) % args.eval_every == 0
        if evaluates and position.train_stats is None:
            self._save()  # an evaluation that fails costs no training: a resumed run begins with it
        self.losses.append(stats["loss"])
        record = {f"train_{name}": value for name, value in stats.items()}
        best_score, waited, found = position.best_score, position.waited, {}
        if evaluates:
            self.last_test = test_stats = self._evaluate(monitor)
            found["thresholds"] = self.validation.report(epoch)
            record |= {f"test_{name}": value for name, value in test_stats.items()}
            best_score = max(best_score, score(test_stats))
            waited = 0 if best_score > position.best_score else waited + 1
        if not self.per_step:
            with warnings.catch_warnings():  # if only an evaluation was left, the optimizer took no step
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                self.lr_scheduler.step()
        trainable = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        record |= {"epoch": epoch, "n_parameters": trainable}

        self.state.position = Position(epoch + 1, 0, taken, best_score, waited=waited)
        names = self._checkpoint_names(epoch, is_best=best_score > position.best_score)
        # Where epochs take a second, most of the time would go into checkpoints: those between evaluations can wait.
        can_wait = not evaluates and names == [CHECKPOINT]
        waits = can_wait and not run_on_main(self.folder.save_is_due)
        if not waits and not self._save(names, record=record, **found):
            self.state.position.best_score = position.best_score  # this best was not saved, a later one may be
        self.folder.log(record)
        self._record = record
        if evaluates:
            self.validation.page.write(last=last or self.state.ends_early())
        monitor.curves.epoch(record, taken)
        return last

    def _evaluate(self, monitor: RunMonitor) -> dict[str, Any]:
        """The results of the weights or, where the run keeps one, of their moving average."""
        if self.average is None:
            return self.validation.run(monitor)
        decay = f"{self.average.current_decay:.6g} at step {self.average.steps:,}"
        get_logger().info(f"evaluating the moving average of the weights (--ema; its decay is {decay})")
        self.average.share_buffers()
        return self.validation.run(monitor, self.averaged_model)

    def _train_steps(self, epoch: int, steps: int, monitor: RunMonitor) -> dict[str, float]:
        """Train from the current position to the end of the epoch, which has `steps` steps; the epoch's averages."""
        position = self.state.position
        set_epoch(self.loader, epoch, position.step)
        return train_one_epoch(
            self.validation.model,
            self.validation.criterion,
            self.loader,
            self.optimizer,
            self.device,
            epoch,
            self.args.clip_max_norm,
            lr_scheduler=self.lr_scheduler if self.per_step else None,
            window=Window(position.step, steps, position.meters),
            print_freq=self.args.print_freq,
            monitor=monitor,
            precision=self.validation.precision,
        )

    def _checkpoint_names(self, epoch: int, *, is_best: bool) -> list[str]:
        """The files to save after an epoch, `checkpoint.pth` last: after a kill in between, all are written again."""
        is_kept = any((epoch + 1) % every == 0 for every in (self.args.lr_drop, self.args.checkpoint_every))
        kept, best = [f"checkpoint{epoch:04}.pth"] * is_kept, [BEST] * is_best
        return [*kept, *best, CHECKPOINT]

    def _save(self, names: Sequence[str] = (CHECKPOINT,), **more: Any) -> bool:
        """Save the state, with `more` entries, under each of `names`; True if all were written. A collective call.

        Raises:
            FloatingPointError: the state is not finite; nothing is saved.
        """
        fault = run_on_main(lambda: find_unusable_state(self.model, self.optimizer))
        if fault:
            at = self.state.position
            raise FloatingPointError(
                f"after {at.steps_taken} steps, {fault}. Nothing was saved, and checkpoints are unchanged: resume from "
                "the last checkpoint with a lower --lr, or with gradient clipping (--clip_max_norm; the published "
                "value is 0.1)"
            )
        return self.folder.save(self.state.state_dict() | more, names)

    def _save_now(self, stop: bool, step: int | None, meters: MetricLogger | None) -> None:
        """Save as a signal asks, and stop if it asks for that.

        Inside an epoch, `step` is the number of its steps done. In the evaluation after it, `step` is None: a resumed
        run repeats only the evaluation.
        """
        at = self.state.position
        if step is not None and meters is not None:
            taken = at.epoch_start + step
            at = Position(at.epoch, step, taken, at.best_score, meters=meters.state_dict(), waited=at.waited)
            self.state.position = at
        self._save()
        where = f"epoch {at.epoch}, step {at.step} of {len(self.loader)}"
        if stop and self.folder.faults:
            raise OSError(f"stopped at {where}, but {'; '.join(self.folder.faults.values())}")
        if self.folder.path is None:
            nothing = f"{where}; nothing is saved, since there is no --output_dir"
            if stop:
                raise StopRequested(f"stopped at {nothing}")
            get_logger().info(f"continuing at {nothing}")
            return
        if self.folder.failed:
            return  # which has been logged
        kept = f"saved {where} to {self.folder.path}/{CHECKPOINT}"
        if stop:
            raise StopRequested(f"{kept}; to resume, run the same command with --resume auto")
        get_logger().info(f"{kept}, continuing")
