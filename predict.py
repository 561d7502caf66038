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

from datasets.annotations.segment_maps import decode_segment_map
from datasets.coco import make_coco_transforms
from datasets.same_size import same_size_batches
from datasets.transforms import get_size_with_aspect_ratio
from models.attention_maps import record_attention
from models.load import load_detector
from models.panoptic import PostProcessPanoptic
from prediction.arguments import parse
from prediction.attention_pictures import attention_sheet
from prediction.folder import PredictionFolder
from prediction.image_list import list_images
from prediction.inputs import Picture, read_picture, to_picture
from prediction.panoptic_map import PanopticMap
from prediction.report import Pace, Table
from prediction.result import Prediction, class_name
from prediction.speed import measure, report
from util.checkpoint import CheckpointError
from util.errors import one_sentence
from util.signals import StopSignals

ANSWERS = ("pred_logits", "pred_boxes", "pred_masks")
PHOTO = (640, 480)  # (w, h) of the image whose size, as the model sees it, `--fps` takes without `--size`


class Predictor:
    """A detector that takes pictures as they come and answers in their pixels.

    Images are prepared as in validation, by the checkpoint's own `val_size` and `max_size`. Only images that are of
    one size then share a batch, so that none is padded and none changes another's result.

    A model of masks gives each detection its mask. One of panoptic data also answers with a map of the whole image, in
    which stuff is at home; its detections are things, unless `classes` names stuff.

    Args:
        checkpoint: a file, an http(s) address, or what `util.checkpoint.load_checkpoint` returned.
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.

    Attributes:
        model: the detector, in evaluation mode.
        args: its settings.
        categories: [{"id", "name"}] that it knows; with "isthing" those of panoptic data.

    Raises:
        CheckpointError, ValueError: the checkpoint or the device cannot be used.
    """

    def __init__(
        self, checkpoint: str | os.PathLike[str] | Mapping[str, Any], device: str | torch.device = "auto"
    ) -> None:
        self.model, self.postprocessors, self.args, self.categories = load_detector(checkpoint, device)
        self.device = torch.device(self.args.device)
        self.names = {category["id"]: category["name"] for category in self.categories}
        self.is_panoptic = "panoptic" in self.postprocessors
        self.transforms = make_coco_transforms("val", val_size=self.args.val_size, max_size=self.args.max_size)

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        *,
        threshold: float = 0.5,
        top_k: int | None = None,
        classes: Sequence[str] | None = None,
        batch_size: int = 8,
        panoptic_threshold: float | None = None,
    ) -> Any:
        """Detect.

        Args:
            images: one image or a list of them: the path of a file, a PIL image, an array [H, W, 3] of uint8, RGB, or a
                tensor [3, H, W] of uint8, or of floats from 0 to 1.
            threshold: least score of a detection.
            top_k: keep so many of the best in each image.
            classes: keep those of these names; of a panoptic map too, whose other pixels become void.
            batch_size: the most images to run at once.
            panoptic_threshold: score that a mask must exceed to take part in the panoptic map, 0.85 by default, which
                suits a model that was trained long; a young one is rarely so sure. `threshold` and `top_k` leave the
                map alone.

        Returns:
            A `Prediction` for one image, a list of them for a list.

        Raises:
            OSError: a file cannot be read, by its name.
            ValueError: an image of another kind, or settings that make no sense.
        """
        for name, least in (("threshold", threshold), ("panoptic_threshold", panoptic_threshold or 0)):
            if not 0 <= least <= 1:
                raise ValueError(f"the {name} is {least}: scores lie from 0 to 1")
        if panoptic_threshold is not None and not self.is_panoptic:
            raise ValueError("the model draws no panoptic maps: leave panoptic_threshold away")
        for name, count in (("top_k", 1 if top_k is None else top_k), ("batch_size", batch_size)):
            if count < 1:
                raise ValueError(f"{name} is {count}: use 1 or more")
        if not isinstance(images, list | tuple):
            choice = {"top_k": top_k, "classes": classes, "panoptic_threshold": panoptic_threshold}
            return self([images], threshold=threshold, **choice)[0]
        named = None if classes is None else self.class_ids(classes)
        pictures = [to_picture(image) for image in images]
        sizes = [self.resized(picture.size) for picture in pictures]
        predictions: dict[int, Prediction] = {}
        for batch in same_size_batches(sizes, batch_size) if pictures else []:
            some = [pictures[index] for index in batch]
            outputs, found = self._detect(some)
            for place, (index, picture) in enumerate(zip(batch, some)):
                order = self._best(found[place], threshold, top_k, named)
                chosen = {name: tensor[order] for name, tensor in found[place].items()}
                names = [class_name(label, self.names) for label in chosen["labels"].tolist()]
                own = {name: outputs[name][place : place + 1] for name in ANSWERS if name in outputs}
                masks = self._masks(own, order, picture) if "segm" in self.postprocessors else None
                whole = self._panoptic(own, picture, panoptic_threshold, named) if self.is_panoptic else None
                found_here = {"names": names, "queries": order, "masks": masks, "panoptic": whole}
                predictions[index] = Prediction(picture, **chosen, **found_here)
        return [predictions[index] for index in range(len(pictures))]

    @torch.inference_mode()
    def _detect(self, pictures: Sequence[Image.Image]) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """What the model answers for some images that are of one size once they are resized, and every query's
        detection in each of them."""
        sizes = torch.tensor([(picture.height, picture.width) for picture in pictures], device=self.device)
        outputs = self.model(self._batch(pictures))
        if not all(outputs[name].isfinite().all() for name in ANSWERS if name in outputs):
            raise FloatingPointError("the model answers with numbers that are not finite: use another checkpoint")
        results = self.postprocessors["bbox"](outputs, sizes)
        return outputs, [{name: tensor.cpu() for name, tensor in result.items()} for result in results]

    def _batch(self, pictures: Sequence[Image.Image]) -> Tensor:
        """What the model sees of pictures that are of one size then [B, 3, H, W]."""
        return torch.stack([self.transforms(picture, None)[0] for picture in pictures]).to(self.device)

    def _best(
        self, found: Mapping[str, Tensor], threshold: float, top_k: int | None, named: Sequence[int] | None
    ) -> Tensor:
        """The queries [n] whose detections are to be kept, the best first."""
        keep = found["scores"] >= threshold
        if named is None and self.is_panoptic:
            named = [label for label, is_thing in self.postprocessors["panoptic"].is_thing_map.items() if is_thing]
        if named is not None:
            keep &= torch.isin(found["labels"], torch.tensor(named))
        order = found["scores"].where(keep, -1.0).argsort(descending=True, stable=True)
        return order[: int(keep.sum())][:top_k]

    def _masks(self, outputs: Mapping[str, Tensor], queries: Tensor, picture: Image.Image) -> Tensor:
        """Masks bool [n, H, W] of some queries alone, as each takes the picture's whole size."""
        if not len(queries):
            return torch.zeros(0, picture.height, picture.width, dtype=torch.bool)
        chosen, seen = {"pred_masks": outputs["pred_masks"][:, queries]}, self.resized(picture.size)
        sizes = [(picture.height, picture.width)], [seen]
        return self.postprocessors["segm"]([{}], chosen, *sizes, padded_size=seen)[0]["masks"][:, 0].bool().cpu()

    def _panoptic(
        self, outputs: Mapping[str, Tensor], picture: Image.Image, threshold: float | None, named: Sequence[int] | None
    ) -> PanopticMap:
        postprocess, seen = self.postprocessors["panoptic"], self.resized(picture.size)
        if threshold is not None:
            postprocess = PostProcessPanoptic(postprocess.is_thing_map, threshold)
        found = postprocess(outputs, [seen], [(picture.height, picture.width)], padded_size=seen)[0]
        return PanopticMap.of(decode_segment_map(found["png_string"]), found["segments_info"], self.names, named)

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
        detector = getattr(self.model, "detr", self.model)  # a mask head has nothing to add
        with torch.inference_mode(), record_attention(detector) as maps:
            detector(self._batch([found.image]))
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
    if predictor.is_panoptic or options.panoptic_threshold is not None:
        choice["panoptic_threshold"] = options.panoptic_threshold
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
    print("" if options.no_pictures else f", pictures in {options.out / 'pictures'}", end="")
    print(f", panoptic maps in {options.out / 'panoptic'}" if predictor.is_panoptic else "")
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
