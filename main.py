"""Train and evaluate DETR: `python main.py --coco_path FOLDER --output_dir RUN`; all flags: `main.py --help`."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from util.arguments import parse
    from util.start_up.command import begin

    begin(parse)

import argparse
import sys

from models import build_model
from training.diagnosis.overfit import OverfitFailed, OverfitTest
from training.run import Training
from training.start import find_start, read_data
from training.validation import Validation
from util.arguments import get_args_parser, parse
from util.compute.compilation import compiled
from util.dist import distribute, end_distributed_mode, get_rank, get_world_size
from util.errors import (
    FIXABLE,
    ProcessGroupError,
    lack_of_memory,
    lack_of_open_files,
    lost_process,
    sentence_or_raise,
)
from util.logging import get_logger
from util.output.folder_lock import locks_released
from util.signals import CommandSignals, StopRequested

__all__ = ["get_args_parser", "main"]

# Errors that the user can fix; any other is a bug and shows its traceback.
FIXABLE_HERE = (*FIXABLE, ImportError, ProcessGroupError)
# What signals mean before the training loop, which handles them itself, and in an evaluation: (a stop, a save).
TRAINING_STOPS = (
    "stopped before the training began; nothing is lost, and the same command starts it again",
    "there is nothing to save yet; the state is saved after the first step",
)
EVALUATION_STOPS = (
    "the evaluation was stopped; it has no result, and checkpoints are unchanged",
    "an evaluation has no state to save; it continues",
)
OVERFIT_STOPS = (
    "the test with --overfit was stopped; it has no result, and checkpoints are unchanged",
    "a test with --overfit has no state to save; it continues",
)
OVERFIT_FAILED = 3  # the exit code


@locks_released()
def main(args: argparse.Namespace) -> None:
    """Train, or with `args.eval` evaluate, or with `args.overfit` test, as the command line says.

    Raises:
        ValueError, OSError, ImportError, CheckpointError: settings, data, weights or a package cannot be used.
        FloatingPointError: training produced a number that is not finite.
        OverfitFailed: with `args.overfit`, the pictures were not learned.
        StopRequested: a signal asked for a stop; the state is saved.
    """
    start = find_start(args)  # fresh, from other weights, on a frozen detector, or where a checkpoint left off
    data = read_data(start)
    model, criterion, postprocessors = build_model(data.args)
    start.prepare_model(model, data.categories)
    together = distribute(compiled(model, data.args.compile), data.args)
    validation = Validation(data.args, together, criterion, postprocessors, data.val, start.folder)
    if data.args.eval:
        validation.run()
        start.save_thresholds(validation.report(start.checkpoint.get("epoch")))
    elif data.args.overfit:
        OverfitTest(start, data, model, validation).run()
    else:
        Training(start, data, model, validation).fit()


def run(argv: list[str] | None = None) -> int:
    """The command: parse, run, and turn errors that the user can fix into one sentence on standard error.

    Returns:
        The exit code: 0, also after a stop with the state saved; 1 after an error; 3 if the test with --overfit failed;
        143 or 130 after SIGTERM or Ctrl-C when there was nothing to save; 130 after a second Ctrl-C.
    """
    args = parse(argv)
    try:
        with CommandSignals() as signals:
            stops = EVALUATION_STOPS if args.eval else OVERFIT_STOPS if args.overfit else TRAINING_STOPS
            signals.sentence, signals.advice = stops
            return run_to_the_end(args, signals)
    except StopRequested as stop:  # before or after `main`
        return _report(stop)
    except KeyboardInterrupt:
        print("stopped at once; the last checkpoint, if there is one, is intact", file=sys.stderr)
        return 130


def run_to_the_end(args: argparse.Namespace, signals: CommandSignals) -> int:
    """Call `main`; returns the exit code, 1 after an error that the user can fix. Other errors are raised."""
    try:
        main(args)
        signals.over = True
    except StopRequested as stop:
        return _report(stop)
    except OverfitFailed:  # which has said why
        signals.over = True
        return OVERFIT_FAILED
    except Exception as error:
        signals.over = True
        lacks = lack_of_memory(error), lack_of_open_files(error, ", or lower --num_workers")
        sentence = sentence_or_raise(error, FIXABLE_HERE, lost_process(error), *lacks)
        rank = f" (process {get_rank()})" if get_world_size() > 1 else ""
        print(f"error{rank}: {sentence}", file=sys.stderr)
        return 1
    finally:
        end_distributed_mode()
    return 0


def _report(stop: StopRequested) -> int:
    get_logger().info(str(stop))
    return stop.code


if __name__ == "__main__":
    sys.exit(run())
