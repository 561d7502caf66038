"""The evaluation of a run: validation images, ground truth and report, built once and used after every epoch."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn

from datasets import get_coco_api_from_dataset
from datasets.annotated_images import AnnotatedImages
from datasets.loader import build_data_loader
from datasets.same_size import resized_sizes
from engine import UNMONITORED, Monitor, evaluate
from evaluation.coco_eval import format_per_class
from evaluation.evaluation import Evaluation
from evaluation.findings import summarize_matches
from evaluation.report import write_evaluation
from evaluation.thresholds import best_thresholds
from training.report.writing import RunReport
from training.run_folder import RunFolder
from util.compute.precision import Precision
from util.dist import is_main_process
from util.loading.class_thresholds import ClassThresholds
from util.logging import get_logger
from util.text import Lines


class Validation:
    """Evaluates the model of a run on its validation images.

    Args:
        args: the settings of the run.
        model: as all processes run it.
        criterion, postprocessors: as `build_model` returns them.
        dataset: the validation images.
        folder: of the run.

    Attributes:
        precision: of the model's forward, in training too.
        page: the run's `report.html`.

    Raises:
        ImportError, ValueError: the ground truth or the settings cannot be evaluated; found here, before any training.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        model: nn.Module,
        criterion: nn.Module,
        postprocessors: dict[str, nn.Module],
        dataset: AnnotatedImages,
        folder: RunFolder,
    ):
        self.args, self.folder, self.image_folder = args, folder, dataset.img_folder
        self.model, self.criterion, self.postprocessors = model, criterion, postprocessors
        self.precision = Precision(args.amp, args.device)
        sizes = resized_sizes(dataset, args.val_size, args.max_size) if args.eval_no_pad else None
        self.loader = build_data_loader(dataset, args.batch_size, train=False, sizes=sizes, **loading(args))
        self.ground_truth = get_coco_api_from_dataset(dataset)
        self.evaluation = Evaluation(
            postprocessors,
            self.ground_truth,
            dataset,
            backend=args.evaluator,
            output_dir=args.output_dir,
            max_dets=args.max_dets,
        )
        kinds = [*self.evaluation.kinds, *["panoptic"] * (self.evaluation.panoptic is not None)]
        self.page = RunReport(args, folder, dataset, kinds)

    def run(self, monitor: Monitor = UNMONITORED, model: nn.Module | None = None) -> dict[str, Any]:
        """The losses and COCO's numbers on the validation images, see `engine.evaluate`.

        Args:
            monitor: surrounds the loop.
            model: to evaluate instead of the one that trains.
        """
        stats, _ = evaluate(
            self.model if model is None else model,
            self.criterion,
            self.postprocessors,
            self.loader,
            self.ground_truth,
            torch.device(self.args.device),
            self.args.output_dir,
            evaluation=self.evaluation,
            print_freq=self.args.print_freq,
            monitor=monitor,
            precision=self.precision,
        )
        return stats

    def report(self, epoch: int | None) -> dict[str, Any] | None:
        """Log the results of each class, and write everything about the last evaluation to `eval/`.

        Args:
            epoch: the last finished epoch, None if unknown.

        Returns:
            The thresholds of the classes, see `evaluation.thresholds`; None where nothing is saved.

        Raises:
            OSError: a file cannot be written; during training that is logged, and counted in `folder.faults`, instead.
        """
        if not is_main_process():
            return None
        coco = self.evaluation.coco
        tables = [f"{kind}\n{format_per_class(coco.per_class(kind))}" for kind in self.evaluation.kinds]
        get_logger().info(Lines("\n".join([f"evaluated at batch size {self.args.batch_size}", *tables])))
        training = not self.args.eval
        if training and not self.folder.writes:
            return None
        matches = summarize_matches(coco)
        thresholds = best_thresholds(matches)
        if not training:
            read = ClassThresholds.read({"thresholds": thresholds}, "the evaluation")
            get_logger().info(read.sentence(dict(zip(matches.ids, matches.names))))
        if not self.folder.writes:
            return thresholds
        try:
            write_evaluation(
                self.folder.path,
                coco,
                epoch=epoch,
                batch_size=self.args.batch_size,
                training=training,
                image_folder=self.image_folder,
                matches=matches,
            )
            self.folder.faults.pop("evaluation", None)
        except OSError as error:
            fault = f"the evaluation could not be written to {self.folder.path} ({error.strerror or error})"
            if not training:
                raise OSError(f"{fault}: choose another --output_dir, or make room") from error
            self.folder.faults["evaluation"] = fault
            get_logger().error(f"{fault}: training continues")
        if not training:  # a training adds a line to its log before
            self.page.write()
        return thresholds


def loading(args: argparse.Namespace) -> dict[str, Any]:
    """The options that all loaders of a run share."""
    return {
        "num_workers": args.num_workers,
        "seed": args.seed,
        "pin_memory": args.device.startswith("cuda"),
        "pad_multiple": args.pad_multiple,
    }
