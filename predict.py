"""Detect objects in images and videos: `python predict.py CHECKPOINT IMAGES --out FOLDER`, or `Predictor` from Python.

`python predict.py CHECKPOINT --fps` measures the network's speed.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from prediction.arguments import parse
    from util.start_up.command import begin

    begin(parse)

import argparse
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from datasets.image_files import image_suffixes
from datasets.same_size import same_size_batches
from prediction.advice import on_threshold
from prediction.arguments import parse
from prediction.folder import ImageNotWritten, PredictionFolder
from prediction.image_ids import AnnotationFile, images_of
from prediction.image_list import list_images
from prediction.inputs import read_upright_rgb, upright_size
from prediction.job_record import FOLDERS, state_of
from prediction.output_check import refuse_to_replace
from prediction.predictor import Predictor
from prediction.report import Progress, Table, count_of_images
from prediction.slicing.predictor import SlicedPredictor
from prediction.speed import PHOTO, measure, report
from prediction.video.command import fetch, predict_videos
from prediction.video.sources import sort_inputs
from util.errors import FIXABLE, OpenFilesError, lack_of_memory, lack_of_open_files, one_sentence, sentence_or_raise
from util.output.folder_lock import FolderLock, locks_released
from util.settings import BEST
from util.signals import CommandSignals, StopRequested, StopSignals
from util.text import printable

LOCK = ".predict.lock"
STOPPED = "stopped; to continue, run the same command with --resume"


@locks_released()
def main(options: argparse.Namespace, apart: Sequence[Path] = ()) -> int:
    """Predict for all images named on the command line; returns the number of images that were skipped.

    `apart` are the videos among them, which are done elsewhere.

    Raises:
        CheckpointError, ValueError, OSError: nothing can be predicted, or results cannot be written.
        StopRequested: a signal requested a stop; finished images are kept.
    """
    no_inputs = [*(options.out / name for name in FOLDERS), *apart]  # what is written is none for the next job either
    ann = AnnotationFile.read(options.ann) if options.ann else None
    ann = AnnotationFile.of_data(options.data, options.part) if options.data else ann
    files = images_of(ann, options.inputs, no_inputs) if ann else list_images(options.inputs, no_inputs)
    refuse_to_replace(options.out, {"the checkpoint": options.checkpoint, ann.flag if ann else "": ann and ann.path})
    FolderLock(options.out, LOCK, "predict.py", "--out").acquire()
    predictor = Predictor(options.checkpoint, options.device, max_pixels=options.max_pixels)
    if options.attention:
        predictor.check_attention()
    if ann:
        ann.warn_of_other_names(predictor.names)
    settings = {"threshold": options.threshold, "top_k": options.top_k, "classes": options.classes}
    if predictor.is_panoptic or options.panoptic_threshold is not None:
        settings["panoptic_threshold"] = options.panoptic_threshold
    if options.slice:
        predictor = SlicedPredictor(predictor, options.slice, options.overlap)
    predictor([], **settings, batch_size=options.batch_size)  # rejects bad settings before anything is written
    if options.threshold == BEST:
        print(predictor.class_thresholds().sentence(predictor.predicted(options.classes)), file=sys.stderr)
    folder = PredictionFolder(
        options.out,
        _job(options, predictor, settings),
        resume=options.resume,
        pictures=not options.no_pictures,
        crops=options.save_crops,
        files=files,
        classes=predictor.names,
    )
    for note in folder.notes:
        print(note, file=sys.stderr)
    remaining = [name for name in files if not folder.has(name, files[name])]
    table = Table(files, predictor.names, counts=options.count)
    skipped = 0
    with StopSignals() as signals, Progress(len(remaining), len(files) - len(remaining)) as progress:
        for batch in _batches(predictor, remaining, files, 1 if options.slice else options.batch_size):
            skipped_before = skipped
            images, states = _read(batch, files, progress, options.max_pixels)
            try:
                predictions = predictor(list(images.values()), **settings, batch_size=options.batch_size)
            except ValueError as error:  # such as an image too long for learned positions: it applies to all of a batch
                progress.print(f"skipped: {printable(', '.join(images), 1000)}: {one_sentence(error)}", sys.stderr)
                predictions = []
            skipped += len(batch) - len(predictions)
            for name, prediction in zip(images, predictions):
                try:
                    attention = predictor.attention(prediction, options.attention_points) if options.attention else None
                    folder.save(name, files[name], prediction, attention, states[name])
                except (ImageNotWritten, ValueError) as error:
                    progress.print(f"skipped: {printable(name)}: {one_sentence(error)}", sys.stderr)
                    skipped += 1
                    continue
                for row in table.rows(name, prediction):
                    progress.print(row)
            progress.step(len(batch), skipped - skipped_before)
            if signals.stop:
                raise StopRequested(STOPPED, 130)
    summary = folder.finish(files, predictor.categories, ann and ann.ids)
    print(table.totals(*folder.counts(files)))
    places = _places(options, predictor.is_panoptic)
    print(f"{count_of_images(len(files) - skipped)}: {printable(summary, 500)}{places}")
    records, has_best = folder.records(files), predictor.has_thresholds
    advice = on_threshold(records, options.threshold, options.checkpoint, has_best=has_best)
    if advice:
        print(advice, file=sys.stderr)
    if skipped:
        print(f"{skipped} of {count_of_images(len(files))} skipped, see the messages above", file=sys.stderr)
    return skipped


def _places(options: argparse.Namespace, is_panoptic: bool) -> str:
    """Folders of results beside the JSON files, for the last line of the output."""
    written = {
        "pictures": not options.no_pictures,
        "crops": options.save_crops,
        "attention": options.attention,
        "panoptic": is_panoptic,
    }
    what = {"panoptic": "panoptic maps"}
    return "".join(
        f", {what.get(name, name)} in {printable(options.out / name, 500)}" for name, there in written.items() if there
    )


def main_with_videos(options: argparse.Namespace) -> int:
    """As `main`, where videos or addresses are among the inputs; returns the number of inputs that were skipped."""
    inputs = sort_inputs(options.inputs, image_suffixes())
    with tempfile.TemporaryDirectory() as folder:
        pictures, videos, skipped = fetch(inputs.web, Path(folder))
        images = [*inputs.images, *map(str, pictures)]
        if images:
            files = [Path(video.address) for video in inputs.videos if video.kind == "file"]
            skipped += main(argparse.Namespace(**vars(options) | {"inputs": images}), files)
    sources = [*inputs.videos, *videos]
    return skipped + (predict_videos(options, sources) if sources else 0)


def _job(options: argparse.Namespace, predictor: Predictor, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All that the results depend on besides the images: a job is resumed only with the same."""
    return {
        "weights": predictor.weights_checksum(),
        **{name: getattr(predictor.args, name) for name in ("val_size", "max_size")},
        "class_names": zlib.crc32(repr(sorted(predictor.names.items())).encode()),
        **settings,
        **({"slice": options.slice, "overlap": options.overlap} if options.slice else {}),
        **({"class_thresholds": predictor.class_thresholds().plain()} if options.threshold == BEST else {}),
        "attention": options.attention,
        "attention_points": options.attention_points if options.attention else [],
    }


def measure_speed(options: argparse.Namespace) -> int:
    """Time the network and print a table; returns 0.

    Raises:
        CheckpointError, ValueError: the checkpoint, the device or the size cannot be used.
    """
    predictor = Predictor(options.checkpoint, options.device)
    if predictor.is_exported:
        raise ValueError(
            "--fps times the parts of a checkpoint's model; `python -m tools.export --time` times exported files"
        )
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
) -> tuple[dict[str, Image.Image], dict[str, list[int]]]:
    """Name → image, and name → state of its file; unreadable files are reported and left out.

    Raises:
        OpenFilesError: no file is to blame.
    """
    images, states = {}, {}
    for name in names:
        try:
            images[name] = read_upright_rgb(files[name], max_pixels)
            states[name] = state_of(files[name])
        except OpenFilesError:
            raise
        except OSError as error:
            images.pop(name, None)
            progress.print(f"skipped: {one_sentence(error)}", sys.stderr)
    return images, states


def _advice_on_memory(error: Exception, options: argparse.Namespace) -> str:
    on_gpu = any(name in str(error).lower() for name in ("cuda", "mps"))
    elsewhere = "use --device cpu" if on_gpu else "close other programs"
    if options.slice:
        return f"lower --slice {options.slice} or --batch_size, or {elsewhere}"
    if options.batch_size > 1 or options.fps:
        return f"lower --batch_size {options.batch_size}, or {elsewhere}"
    return f"{elsewhere}, or leave out the largest images with --max_pixels; --resume continues after what is done"


def run(argv: Sequence[str] | None = None) -> int:
    """The command: parse, predict, and turn an error that the user can fix into one sentence on standard error.

    Returns:
        The exit code: 0; 1 after an error or if an image was skipped; 130 after a requested stop, or if nothing was
        written yet, 128 + the signal's number.
    """
    options = parse(argv)
    try:
        with CommandSignals():
            work = main_with_videos if options.videos else measure_speed if options.fps else main
            return 1 if work(options) else 0
    except StopRequested as stop:
        print(stop, file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130
    except BrokenPipeError:
        with suppress(OSError):  # Python writes to it once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: standard output was closed before all was printed; {STOPPED}", file=sys.stderr)
        return 1
    except Exception as error:
        memory = lack_of_memory(error, _advice_on_memory(error, options))
        sentence = sentence_or_raise(error, FIXABLE, memory, lack_of_open_files(error))
        print(f"error: {sentence}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run())
