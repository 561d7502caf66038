"""Detect objects in images: `python predict.py CHECKPOINT IMAGES --out FOLDER`, or `Predictor` from Python.

`python predict.py CHECKPOINT --fps` measures the network's speed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from datasets.same_size import same_size_batches
from prediction.arguments import parse
from prediction.folder import PredictionFolder
from prediction.image_list import list_images
from prediction.inputs import read_upright_rgb, upright_size
from prediction.predictor import Predictor
from prediction.report import Progress, Table, count_of_images
from prediction.speed import PHOTO, measure, report
from util.checkpoint import CheckpointError
from util.errors import OpenFilesError, lack_of_memory, lack_of_open_files, one_sentence
from util.signals import StopSignals
from util.text import printable

FIXABLE = (ValueError, OSError, CheckpointError, FloatingPointError)  # errors that the user can fix


def main(options: argparse.Namespace) -> int:
    """Predict for all images named on the command line; returns the number of images that were skipped.

    Raises:
        CheckpointError, ValueError, OSError: nothing can be predicted, or results cannot be written.
        KeyboardInterrupt: a signal requested a stop; finished images are kept.
    """
    files = list_images(options.inputs, leave_out=options.out)
    predictor = Predictor(options.checkpoint, options.device, max_pixels=options.max_pixels)
    settings = {"threshold": options.threshold, "top_k": options.top_k, "classes": options.classes}
    if predictor.is_panoptic or options.panoptic_threshold is not None:
        settings["panoptic_threshold"] = options.panoptic_threshold
    predictor([], **settings, batch_size=options.batch_size)  # rejects bad settings before anything is written
    job = {"weights": predictor.weights_checksum(), **settings, "attention": options.attention}
    folder = PredictionFolder(
        options.out, job, resume=options.resume, pictures=not options.no_pictures, crops=options.save_crops
    )
    remaining = [name for name in files if not folder.has(name, files[name])]
    table = Table(files, predictor.names, counts=options.count)
    skipped = 0
    with StopSignals() as signals, Progress(len(remaining), len(files) - len(remaining)) as progress:
        for batch in _batches(predictor, remaining, files, options.batch_size):
            images = _read(batch, files, progress, options.max_pixels)
            try:
                predictions = predictor(list(images.values()), **settings, batch_size=options.batch_size)
            except ValueError as error:  # such as an image too long for learned positions: it applies to all of a batch
                progress.print(f"skipped: {printable(', '.join(images), 1000)}: {one_sentence(error)}", sys.stderr)
                predictions = []
            for name, prediction in zip(images, predictions):
                attention = predictor.attention(prediction, options.attention_points) if options.attention else None
                folder.save(name, files[name], prediction, attention)
                for row in table.rows(name, prediction):
                    progress.print(row)
            skipped += len(batch) - len(predictions)
            progress.step(len(batch))
            if signals.stop:
                raise KeyboardInterrupt
    written = folder.finish(files, predictor.categories)
    print(table.totals(*folder.counts(files)))
    print(f"{count_of_images(len(files) - skipped)}: {written}", end="")
    print("" if options.no_pictures else f", pictures in {options.out / 'pictures'}", end="")
    print(f", panoptic maps in {options.out / 'panoptic'}" if predictor.is_panoptic else "")
    if skipped:
        print(f"{skipped} of {count_of_images(len(files))} skipped, see the messages above", file=sys.stderr)
    return skipped


def measure_speed(options: argparse.Namespace) -> int:
    """Time the network and print a table; returns 0.

    Raises:
        CheckpointError, ValueError: the checkpoint, the device or the size cannot be used.
    """
    predictor = Predictor(options.checkpoint, options.device)
    size = tuple(options.size or predictor.resized(PHOTO))
    speed = measure(predictor.model, size, predictor.device, batch_size=options.batch_size)
    print(report(predictor.model, speed, size, predictor.device))
    return 0


def _batches(
    predictor: Predictor, names: Sequence[str], files: Mapping[str, Path], batch_size: int
) -> Iterator[list[str]]:
    """Group images of equal resized size, roughly in the given order; an unreadable file gets its own batch."""
    if batch_size == 1:
        yield from ([name] for name in names)
        return
    sizes = []
    for name in names:
        try:
            sizes.append(predictor.resized(upright_size(files[name], predictor.max_pixels)))
        except OSError:  # reading the whole file says more
            sizes.append(None)
    for batch in sorted(same_size_batches(sizes, batch_size)) if names else []:
        yield [names[index] for index in batch]


def _read(
    names: Sequence[str], files: Mapping[str, Path], progress: Progress, max_pixels: int
) -> dict[str, Image.Image]:
    """Name → image; unreadable files are reported and left out. OpenFilesError: no file is to blame."""
    images = {}
    for name in names:
        try:
            images[name] = read_upright_rgb(files[name], max_pixels)
        except OpenFilesError:
            raise
        except OSError as error:
            progress.print(f"skipped: {one_sentence(error)}", sys.stderr)
    return images


def run(argv: Sequence[str] | None = None) -> int:
    """The command: parse, predict, and turn an error that the user can fix into one sentence on standard error.

    Returns:
        The exit code: 0; 1 after an error or if an image was skipped; 130 after a requested stop.
    """
    options = parse(argv)
    try:
        return 1 if (measure_speed if options.fps else main)(options) else 0
    except KeyboardInterrupt:
        print("stopped; to continue, run the same command with --resume", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = lack_of_memory(error, f"lower --batch_size {options.batch_size}, or use --device cpu")
        sentence = sentence or lack_of_open_files(error)
        if sentence is None and isinstance(error, FIXABLE):
            sentence = one_sentence(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run())
