"""Find objects in images: `python predict.py CHECKPOINT IMAGES --out FOLDER`, or `Predictor` from Python.

`python predict.py CHECKPOINT --fps` measures how fast that goes.
"""

from __future__ import annotations

import argparse
import os
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from datasets.coco import make_coco_transforms
from datasets.pictures import Picture, read_picture, to_picture
from datasets.same_size import same_size_batches
from datasets.transforms import get_size_with_aspect_ratio
from models.attention_maps import record_attention
from models.load import load_detector
from util.attention_pictures import attention_sheet
from util.checkpoint import CheckpointError
from util.errors import one_sentence
from util.image_list import list_images
from util.prediction_arguments import parse
from util.prediction_folder import Prediction, PredictionFolder, class_name
from util.prediction_report import Pace, Table
from util.signals import StopSignals
from util.speed import measure, report

PHOTO = (640, 480)  # (w, h) of the image whose size, as the model sees it, `--fps` takes without `--size`


class Predictor:
    """A detector that takes pictures as they come and answers in their pixels.

    Images are prepared as in validation, by the checkpoint's own `val_size` and `max_size`. Only images that are of
    one size then share a batch, so that none is padded and none changes another's result.

    Args:
        checkpoint: a file, an http(s) address, or what `util.checkpoint.load_checkpoint` returned.
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.

    Attributes:
        model: the detector, in evaluation mode.
        args: its settings.
        categories: [{"id", "name"}] that it knows.

    Raises:
        CheckpointError, ValueError: the checkpoint or the device cannot be used.
    """

    def __init__(
        self, checkpoint: str | os.PathLike[str] | Mapping[str, Any], device: str | torch.device = "auto"
    ) -> None:
        self.model, self.postprocessors, self.args, self.categories = load_detector(checkpoint, device)
        self.device = torch.device(self.args.device)
        self.names = {category["id"]: category["name"] for category in self.categories}
        self.transforms = make_coco_transforms("val", val_size=self.args.val_size, max_size=self.args.max_size)

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        *,
        threshold: float = 0.5,
        top_k: int | None = None,
        classes: Sequence[str] | None = None,
        batch_size: int = 8,
    ) -> Any:
        """Detect.

        Args:
            images: one image or a list of them: the path of a file, a PIL image, an array [H, W, 3] of uint8, RGB, or a
                tensor [3, H, W] of uint8, or of floats from 0 to 1.
            threshold: least score of a detection.
            top_k: keep so many of the best in each image.
            classes: keep those of these names.
            batch_size: the most images to run at once.

        Returns:
            A `Prediction` for one image, a list of them for a list.

        Raises:
            OSError: a file cannot be read, by its name.
            ValueError: an image of another kind, or settings that make no sense.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"the threshold is {threshold}: scores lie from 0 to 1")
        for name, count in (("top_k", 1 if top_k is None else top_k), ("batch_size", batch_size)):
            if count < 1:
                raise ValueError(f"{name} is {count}: use 1 or more")
        if not isinstance(images, list | tuple):
            return self([images], threshold=threshold, top_k=top_k, classes=classes)[0]
        wanted = None if classes is None else torch.tensor(self.class_ids(classes))
        pictures = [to_picture(image) for image in images]
        sizes = [self.resized(picture.size) for picture in pictures]
        predictions: dict[int, Prediction] = {}
        for batch in same_size_batches(sizes, batch_size) if pictures else []:
            for index, found in zip(batch, self._detect([pictures[index] for index in batch])):
                keep = found["scores"] >= threshold
                if wanted is not None:
                    keep &= torch.isin(found["labels"], wanted)
                order = found["scores"].where(keep, -1.0).argsort(descending=True, stable=True)
                order = order[: int(keep.sum())][:top_k]
                labels = found["labels"][order]
                names = [class_name(label, self.names) for label in labels.tolist()]
                boxes, scores = found["boxes"][order], found["scores"][order]
                predictions[index] = Prediction(pictures[index], boxes, scores, labels, names, order)
        return [predictions[index] for index in range(len(pictures))]

    @torch.inference_mode()
    def _detect(self, pictures: Sequence[Image.Image]) -> list[dict[str, Tensor]]:
        """Every query's detection in each of some images that are of one size once they are resized."""
        batch = torch.stack([self.transforms(picture, None)[0] for picture in pictures])  # [B, 3, H, W]
        sizes = torch.tensor([(picture.height, picture.width) for picture in pictures], device=self.device)
        results = self.postprocessors["bbox"](self.model(batch.to(self.device)), sizes)
        found = [{name: tensor.cpu() for name, tensor in result.items()} for result in results]
        if not all(result[name].isfinite().all() for result in found for name in ("scores", "boxes")):
            raise FloatingPointError("the model answers with numbers that are not finite: use another checkpoint")
        return found

    def attention(self, found: Prediction, points: Sequence[tuple[float, float]] = ()) -> Image.Image:
        """A picture of where the model looked: its last decoder layer for each of the best detections, its last encoder
        layer from some points; `models.attention_maps.record_attention` gives the numbers.

        Args:
            found: what this predictor answered.
            points: (x, y) in pixels, by default the middles of the best boxes.

        Raises:
            ValueError: a point outside of the image, or a model without encoder layers.
        """
        if self.args.enc_layers == 0:
            raise ValueError("the model has no encoder layers, so that there is no attention of points to draw")
        with record_attention(self.model) as maps:
            self._detect([found.image])
        return attention_sheet(found, maps.decoder[-1][0], maps.encoder[-1][0], points)

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) that the model sees of an image of `size` = (w, h)."""
        return get_size_with_aspect_ratio(size, self.args.val_size, self.args.max_size)

    def class_ids(self, names: Sequence[str]) -> list[int]:
        """Category ids of class names, which may differ in case.

        Raises:
            ValueError: the model knows no such class.
        """
        known: dict[str, list[int]] = defaultdict(list)
        for number, name in self.names.items():
            known[name.casefold()].append(number)
        unknown = [name for name in names if name.casefold() not in known]
        if unknown:
            raise ValueError(
                f"the model knows no class {', '.join(map(repr, unknown))}; it knows {', '.join(self.names.values())}"
            )
        return [number for name in names for number in known[name.casefold()]]


def main(options: argparse.Namespace) -> int:
    """Predict for all images that the command line names; returns how many could not be read or used.

    Raises:
        CheckpointError, ValueError, OSError: nothing can be predicted, or nothing written.
        KeyboardInterrupt: a signal asked for the end; what is done is kept.
    """
    files = list_images(options.inputs, leave_out=options.out)
    predictor = Predictor(options.checkpoint, options.device)
    choice = {"threshold": options.threshold, "top_k": options.top_k, "classes": options.classes}
    predictor([], **choice, batch_size=options.batch_size)  # refuses now what it would refuse later
    settings = {"weights": _checksum(predictor.model), **choice, "attention": options.attention}
    to_write = {"pictures": not options.no_pictures, "crops": options.save_crops}
    folder = PredictionFolder(options.out, settings, resume=options.resume, **to_write)
    todo = [name for name in files if not folder.has(name, files[name])]
    table = Table(files, predictor.names, counts=options.count)
    skipped = 0
    with StopSignals() as signals, Pace(len(todo), len(files) - len(todo)) as pace:
        for batch in _batches(predictor, todo, files, options.batch_size):
            names, pictures = [], []
            for name in batch:
                try:
                    pictures.append(read_picture(files[name]))
                    names.append(name)
                except OSError as error:
                    pace.say(f"skipped: {one_sentence(error)}", sys.stderr)
            try:
                predictions = predictor(pictures, **choice, batch_size=options.batch_size)
            except ValueError as error:  # such as an image too long for learned positions; all of a batch are alike
                pace.say(f"skipped: {', '.join(names)}: {one_sentence(error)}", sys.stderr)
                predictions = []
            for name, found in zip(names, predictions):
                attention = predictor.attention(found, options.attention_points) if options.attention else None
                folder.save(name, files[name], found, attention)
                for row in table.rows(name, found):
                    pace.say(row)
            skipped += len(batch) - len(predictions)
            pace.step(len(batch))
            if signals.stop:
                raise KeyboardInterrupt
    written = folder.finish(files, predictor.categories)
    print(table.totals(*folder.counts(files)))
    print(f"{len(files) - skipped} images: {written}", end="")
    print("" if options.no_pictures else f", pictures in {options.out / 'pictures'}")
    if skipped:
        print(f"{skipped} of {len(files)} images could not be read or used; they are named above", file=sys.stderr)
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
    """Names of images of one size, in about the order given; what cannot be read has a batch of its own."""
    if batch_size == 1:
        yield from ([name] for name in names)
        return
    sizes = []
    for name in names:
        try:
            with Image.open(files[name]) as image:  # the file's head alone
                sizes.append(predictor.resized(image.size))
        except Exception:  # damaged files surface as almost any type; reading it whole will say more
            sizes.append(None)
    for batch in sorted(same_size_batches(sizes, batch_size)) if names else []:
        yield [names[index] for index in batch]


def _checksum(model: torch.nn.Module) -> int:
    total = 0
    for tensor in model.state_dict().values():
        total = zlib.crc32(tensor.cpu().contiguous().numpy(), total)
    return total


def run(argv: list[str] | None = None) -> int:
    """The command.

    Returns:
        The exit code: 0; 1 after an error or where an image could not be read; 130 after a stop that was asked for.
    """
    options = parse(argv)
    try:
        return 1 if (measure_speed if options.fps else main)(options) else 0
    except KeyboardInterrupt:
        print("stopped; the same command with --resume goes on from here", file=sys.stderr)
        return 130
    except torch.OutOfMemoryError:
        print(
            f"error: out of memory at --batch_size {options.batch_size}: lower it, or try --device cpu", file=sys.stderr
        )
    except (ValueError, OSError, CheckpointError, FloatingPointError) as error:
        print(f"error: {one_sentence(error)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(run())
