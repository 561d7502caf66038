"""Train and evaluate DETR: `python main.py --coco_path FOLDER --output_dir RUN`; all flags: `main.py --help`."""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from contextlib import closing
from datetime import timedelta
from typing import Any

import torch
from torch import nn

from datasets import build_dataset, get_coco_api_from_dataset
from datasets.coco import CocoDetection
from datasets.loader import build_data_loader, fingerprint, set_epoch
from datasets.same_size import resized_sizes
from engine import evaluate, score, train_one_epoch, trial_step
from evaluation.coco_eval import CocoEvaluator, format_per_class
from evaluation.report import write_evaluation
from models import build_model
from models.backbone import check_backbone, wanted_weights
from models.load import follow_detector, load_frozen
from training.advice import more_objects_than_queries, too_short_training
from training.classes import settle_classes
from training.init_weights import init_weights
from training.optim import build_lr_scheduler, build_optimizer
from training.preflight import preflight
from training.resume import Position, check_same_position, follow_checkpoint, restore_training, surroundings
from training.run_folder import CHECKPOINT, RunFolder, find_checkpoint
from training.tensorboard import TensorBoardWriter, require_tensorboard
from training.worst_batch import objects_per_image, typical_batches, worst_batch
from util.arguments import check_args, get_args_parser, given_flags
from util.checkpoint import load_checkpoint, load_weights
from util.device import resolve_device
from util.dist import distribute, get_rank, get_world_size, init_distributed_mode, is_main_process
from util.errors import CheckpointError, ProcessGroupError, lost_process, one_sentence
from util.files import plain
from util.logging import get_logger, get_sha
from util.meters import MetricLogger
from util.rng import seed_everything
from util.signals import StopRequested, StopSignals

__all__ = ["get_args_parser", "main"]

# Errors that a user can mend; any other is a fault of the program and shows where it is.
MENDABLE = (ValueError, OSError, ImportError, FloatingPointError, CheckpointError, ProcessGroupError)


def main(args: argparse.Namespace) -> None:
    """Train, or with `args.eval` evaluate, as the command line says.

    Raises:
        ValueError, OSError, ImportError, CheckpointError: settings, data, weights or a package cannot be used.
        FloatingPointError: training produced a number that is not finite.
        StopRequested: a signal asked for the end; the state is saved.
    """
    log = get_logger()
    check_args(args)
    if args.tensorboard:
        require_tensorboard()
    args.device = str(resolve_device(args.device))
    init_distributed_mode(args)
    folder = RunFolder(args.output_dir)
    checkpoint = find_checkpoint(args, folder)
    frozen = load_checkpoint(args.frozen_weights) if args.frozen_weights and not checkpoint else {}
    if args.frozen_weights:
        follow_detector(args, checkpoint or frozen, args.resume or args.frozen_weights)
    follow_checkpoint(args, checkpoint)
    check_args(args)  # what came out of the checkpoint, too
    check_backbone(args.backbone, args.backbone_norm, wanted_weights(args))
    seed_everything(args.seed + get_rank())
    log.info(f"git: {get_sha()}\n{args}")

    dataset_val = build_dataset("val", args)
    dataset_train = None if args.eval else build_dataset("train", args)
    categories = settle_classes(args, checkpoint or frozen, [d for d in (dataset_train, dataset_val) if d is not None])
    model, criterion, postprocessors = build_model(args)
    model.to(memory_format=torch.channels_last)  # the same numbers, faster convolutions
    if checkpoint:
        load_weights(model, checkpoint["model"], args.resume)
    elif frozen:
        load_frozen(model, frozen, args.frozen_weights)
    elif args.init_from:
        log.info(init_weights(model, load_checkpoint(args.init_from), args.init_from, categories))
    run = Run(args, model, criterion, postprocessors, dataset_val, categories, folder)
    if args.eval:
        run.evaluate()
        run.save_evaluation(checkpoint.get("epoch"))
    else:
        run.prepare_training(dataset_train, checkpoint)
        run.train()


class Run:
    """One training, or one evaluation: the parts, once they are built, and the order in which they act."""

    def __init__(
        self,
        args: argparse.Namespace,
        model: nn.Module,
        criterion: nn.Module,
        postprocessors: dict[str, nn.Module],
        dataset_val: CocoDetection,
        categories: list[dict[str, Any]],
        folder: RunFolder,
    ):
        self.args, self.categories, self.folder = args, categories, folder
        self.model, self.criterion, self.postprocessors = model, criterion, postprocessors
        self.distributed_model = distribute(model, args)
        self.device = torch.device(args.device)
        self.loading = {"num_workers": args.num_workers, "seed": args.seed, "pin_memory": self.device.type == "cuda"}
        sizes = resized_sizes(dataset_val, args.val_size, args.max_size) if args.eval_no_pad else None
        self.loader_val = build_data_loader(dataset_val, args.batch_size, train=False, sizes=sizes, **self.loading)
        self.image_folder = dataset_val.img_folder
        self.base_ds = get_coco_api_from_dataset(dataset_val)
        self.kinds = [kind for kind in ("bbox", "segm") if kind in postprocessors]
        CocoEvaluator(self.base_ds, self.kinds, backend=args.evaluator)  # refuses now, not after an epoch
        self.trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.log = get_logger()
        self.log.info(f"parameters that train: {self.trainable:,}; classes: {args.num_classes}; device: {args.device}")

    def prepare_training(self, dataset_train: CocoDetection, checkpoint: dict[str, Any]) -> None:
        """Build what only training needs and put everything where the checkpoint left it."""
        args = self.args
        self.loader_train = build_data_loader(dataset_train, args.batch_size, train=True, **self.loading)
        self.steps_per_epoch = len(self.loader_train)
        self.data = fingerprint(dataset_train)
        self.optimizer = build_optimizer(self.model, args)
        self.lr_scheduler, self.per_step = build_lr_scheduler(self.optimizer, args, self.steps_per_epoch)
        own_log = bool(checkpoint) and self.folder.owns(args.resume)
        if own_log:  # also if nothing is left to train
            self.folder.align_log(checkpoint.get("epoch", -1), checkpoint.get("record"), drop_later=False)
        where = {"steps_per_epoch": self.steps_per_epoch, "data": self.data}
        self.position = restore_training(args, checkpoint, self.optimizer, self.lr_scheduler, **where)
        check_same_position(self.position, args.resume)
        self.advise(dataset_train)
        self.folder.clean()
        if own_log:
            self.folder.align_log(self.position.epoch - 1, checkpoint.get("record"))

    def advise(self, dataset_train: CocoDetection) -> None:
        """Warn of what will disappoint and, on request, try the largest batch and forecast the run."""
        args = self.args
        steps = min(args.epochs * self.steps_per_epoch, args.max_steps or math.inf)
        per_step, from_scratch = args.batch_size * get_world_size(), not (args.resume or args.init_from)
        plan = {"backbone": args.backbone, "from_scratch": from_scratch}
        for advice in (
            more_objects_than_queries(objects_per_image(dataset_train), args.num_queries, dataset_train.ids),
            too_short_training(steps, per_step, len(dataset_train), **plan),
        ):
            if advice and is_main_process():
                self.log.warning(advice)
        if args.preflight:
            step = trial_step(self.model, self.criterion, self.device)
            batches = worst_batch(dataset_train, args.batch_size), typical_batches(dataset_train, args.batch_size, 5)
            trial = {"device": self.device, "optimizer": self.optimizer, "steps": steps - self.position.steps_taken}
            self.log.info(preflight(self.model, step, *batches, **trial))

    def train(self) -> None:
        """The epochs that are left."""
        args, first = self.args, self.position.epoch
        curves = f"{args.output_dir}/tensorboard" if args.tensorboard else None
        writer = TensorBoardWriter(curves, purge_step=self.position.steps_taken + 1)
        start = time.time()
        self.log.info(f"start training: epochs {first} to {args.epochs - 1}, {self.steps_per_epoch} steps each")
        with StopSignals() as self.signals, closing(writer) as self.curves:
            for epoch in range(first, args.epochs):
                last = self.train_epoch(epoch)
                _report_pace(epoch + 1 - first, args.epochs - first, time.time() - start)
                if last:
                    break
        self.log.info(f"Training time {timedelta(seconds=int(time.time() - start))}")
        if self.folder.failed:
            raise OSError(self.folder.failed)

    def train_epoch(self, epoch: int) -> bool:
        """Train, evaluate where it is due, save; True after the last epoch."""
        args, position = self.args, self.position
        epoch_start = position.steps_taken - position.step  # in steps since the start
        steps = self.steps_per_epoch if args.max_steps is None else args.max_steps - epoch_start
        steps = min(steps, self.steps_per_epoch)
        last = epoch + 1 == args.epochs or epoch_start + steps == args.max_steps

        stats = position.train_stats
        if stats is None:
            set_epoch(self.loader_train, epoch, position.step)
            stats = train_one_epoch(
                self.distributed_model,
                self.criterion,
                self.loader_train,
                self.optimizer,
                self.device,
                epoch,
                args.clip_max_norm,
                lr_scheduler=self.lr_scheduler if self.per_step else None,
                max_steps=steps,
                print_freq=args.print_freq,
                first_step=position.step,
                meters=position.meters,
                signals=self.signals,
                at_request=self._save_inside,
                watch=lambda step, values: self.curves.scalars(values, epoch_start + step + 1),
                output_dir=args.output_dir,
            )
        self.position = Position(epoch, steps, epoch_start + steps, position.best_ap, train_stats=stats)

        record = {f"train_{name}": value for name, value in stats.items()}
        names = []
        if (epoch + 1) % args.lr_drop == 0 or (epoch + 1) % args.checkpoint_every == 0:
            names.append(f"checkpoint{epoch:04}.pth")
        if last or (epoch + 1) % args.eval_every == 0:
            test_stats = self.evaluate()
            self.save_evaluation(epoch)
            record |= {f"test_{name}": value for name, value in test_stats.items()}
            ap = score(test_stats)
            if ap > self.position.best_ap:
                self.position.best_ap = ap
                names.append("checkpoint_best.pth")
        if not self.per_step:
            with warnings.catch_warnings():  # where only an evaluation was left, PyTorch misses the optimizer's step
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                self.lr_scheduler.step()
        record |= {"epoch": epoch, "n_parameters": self.trainable}
        self.position = Position(epoch + 1, 0, self.position.steps_taken, self.position.best_ap)
        # What the epoch adds comes first: after a kill in between, the epoch is trained again and adds it again.
        if not self.folder.save(self.state() | {"record": record}, [*names, CHECKPOINT]):
            self.position.best_ap = position.best_ap  # this best is not kept: the next one may be
        self.folder.log(record)
        self.curves.epoch(record, self.position.steps_taken)
        return last

    def evaluate(self) -> dict[str, Any]:
        """The losses and COCO's numbers on the validation images; `self.evaluator` keeps the details."""
        args = self.args
        stats, self.evaluator = evaluate(
            self.distributed_model,
            self.criterion,
            self.postprocessors,
            self.loader_val,
            self.base_ds,
            self.device,
            args.output_dir,
            evaluator=args.evaluator,
            print_freq=args.print_freq,
            signals=getattr(self, "signals", None),
            at_request=self._save_after_training,
        )
        return stats

    def save_evaluation(self, epoch: int | None) -> None:
        """Show the classes' results, and write everything about the last evaluation to `eval/`."""
        if not is_main_process():
            return
        tables = [f"{kind}\n{format_per_class(self.evaluator.per_class(kind))}" for kind in self.kinds]
        self.log.info("\n".join([f"evaluated at batch size {self.args.batch_size}", *tables]))
        if not self.folder.writes:
            return
        try:
            how = {"batch_size": self.args.batch_size, "training": not self.args.eval}
            write_evaluation(self.folder.path, self.evaluator, epoch=epoch, image_folder=self.image_folder, **how)
        except OSError as error:
            if self.args.eval:
                raise
            self.log.error(f"the evaluation could not be written to {self.folder.path} ({error}): training goes on")

    def state(self, progress: dict[str, Any] | None = None) -> dict[str, Any]:
        """The checkpoint: published keys, then ours (see `training.resume`). A collective call."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "epoch": self.position.epoch - 1,
            "args": plain(self.args),
            "categories": self.categories,
            "best_ap": self.position.best_ap,
            "step": self.position.steps_taken,
            "progress": progress,
            "data": self.data,
            **surroundings(),
        }

    def _save_inside(self, step: int, meters: MetricLogger, stop: bool) -> None:
        """A signal came in the middle of an epoch, of which `step` steps are done."""
        at = self.position
        self.position = Position(at.epoch, step, at.steps_taken - at.step + step, at.best_ap)
        self._save_now({"epoch": at.epoch, "step": step, "meters": meters.state_dict()}, stop)

    def _save_after_training(self, stop: bool) -> None:
        """A signal came in the evaluation that ends an epoch: on resuming, only the evaluation is done again."""
        at = self.position
        self._save_now({"epoch": at.epoch, "step": at.step, "train_stats": at.train_stats}, stop)

    def _save_now(self, progress: dict[str, Any], stop: bool) -> None:
        saved = self.folder.save(self.state(progress))
        self.signals.save = False
        where = f"epoch {progress['epoch']}, step {progress['step']} of {self.steps_per_epoch}"
        if stop and not saved:
            raise OSError(f"stopped at {where}, but {self.folder.failed}")
        if stop and self.folder.path is None:
            raise StopRequested(f"stopped at {where}; nothing is saved, since there is no --output_dir")
        kept = f"saved {where} to {self.folder.path}/{CHECKPOINT}"
        if stop:
            raise StopRequested(f"{kept}; to go on, run the same command with --resume auto")
        self.log.info(f"{kept}, going on")


def _report_pace(done: int, total: int, seconds: float) -> None:
    left = timedelta(seconds=int(seconds / done * (total - done)))
    get_logger().info(f"{done} of {total} epochs in {timedelta(seconds=int(seconds))}, about {left} to go")


def run(argv: list[str] | None = None) -> int:
    """The command: parse, run, and turn what a user can mend into one sentence on standard error.

    Returns:
        The exit code: 0, also after a stop that was asked for and saved; 1 after an error; 130 after a second Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        description="Train and evaluate DETR.",
        parents=[get_args_parser()],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    args = parser.parse_args(argv)
    args.given = given_flags(parser, argv)
    try:
        main(args)
    except StopRequested as stop:
        get_logger().info(str(stop))
    except KeyboardInterrupt:
        print("stopped at once; the last checkpoint, if there is one, is whole", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = lost_process(error) or (one_sentence(error) if isinstance(error, MENDABLE) else None)
        if sentence is None:
            raise
        rank = f" (process {get_rank()})" if get_world_size() > 1 else ""
        print(f"error{rank}: {sentence}", file=sys.stderr)
        return 1
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(run())
