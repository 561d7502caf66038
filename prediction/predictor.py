"""`Predictor`: a trained detector that takes images of any kind and returns detections in their pixels."""

from __future__ import annotations

import os
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from datasets.annotations.segment_maps import decode_segment_map
from datasets.coco import make_coco_transforms
from datasets.same_size import same_size_batches
from datasets.transforms import get_size_with_aspect_ratio
from models.attention_maps import record_attention
from models.fast.inference import optimize_for_inference
from models.load import load_detector
from models.panoptic import PostProcessPanoptic
from prediction.attention_pictures import attention_sheet
from prediction.exported.detector import is_exported, load_exported
from prediction.inputs import RGB, ImageInput, check_channels, to_upright_rgb
from prediction.panoptic_map import PanopticMap
from prediction.queries.choice import Masked, best_queries, check_finite, checked_score, with_masks
from prediction.result import Prediction, class_name
from prediction.sources.series import RAISE, SKIP, predictions_of
from util.checkpoint import load_checkpoint
from util.loading.class_thresholds import ClassThresholds
from util.settings import BEST, MAX_PIXELS
from util.text import printable


class Predictor:
    """A detector for inference: images in, detections in their own pixels out.

    Images are preprocessed as in validation, with the checkpoint's `val_size` and `max_size`. Only images that have the
    same size after resizing share a batch, so nothing is padded and no image affects the result of another.

    A model with a mask head also returns a mask for each detection. A panoptic model also returns a panoptic map of
    the whole image; its detections are things only, unless `classes` names stuff classes.

    Args:
        checkpoint: a file, an http(s) address, or the result of `util.checkpoint.load_checkpoint`. A file of
            `tools.export` (.onnx, .pt2, .xml) is taken as well; it gives the same results within 0.001 of the model's
            outputs, but no attention.
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps. Exported files run on the CPU.
        max_pixels: image files with more pixels are refused before they are decoded.
        threshold: minimum score of a detection, or "best": that of each class's best F1 on the validation set, which
            the checkpoint holds. A call may pass another one.
        optimize: prepare the model for inference, see `models.fast.inference.optimize_for_inference`. False keeps the
            model as it was trained, which can be saved, moved and trained on.

    Attributes:
        model: the detector, in evaluation mode.
        is_exported: whether `model` is a file of `tools.export`, which another runtime computes.
        args: the model's settings; of an exported file only `val_size`, `max_size` and `device`.
        categories: the classes, [{"id", "name"}]; those of a panoptic model also have "isthing".

    Raises:
        CheckpointError, ValueError: the checkpoint or the device cannot be used, or it has no thresholds for "best".
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | Mapping[str, Any],
        device: str | torch.device = "auto",
        *,
        max_pixels: int = MAX_PIXELS,
        threshold: float | str = 0.5,
        optimize: bool = True,
    ) -> None:
        self.max_pixels, self.threshold = max_pixels, threshold
        self._source = "the given checkpoint" if isinstance(checkpoint, Mapping) else os.fspath(checkpoint)
        self.is_exported = not isinstance(checkpoint, Mapping) and is_exported(self._source)
        if self.is_exported:
            detector, thresholds = load_exported(self._source, device)
        else:
            loaded = checkpoint if isinstance(checkpoint, Mapping) else load_checkpoint(checkpoint)
            detector, thresholds = load_detector(loaded, device, source=self._source), loaded.get("thresholds")
        self._thresholds = {"thresholds": thresholds}
        self._minimum(threshold)
        model, self.postprocessors, self.args, self.categories = detector
        self.model = optimize_for_inference(model) if optimize and not self.is_exported else model
        self.device = torch.device(self.args.device)
        self.names = {category["id"]: category["name"] for category in self.categories}
        self.is_panoptic = "panoptic" in self.postprocessors
        self.transforms = make_coco_transforms("val", val_size=self.args.val_size, max_size=self.args.max_size)

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput] | Iterator[ImageInput],
        *,
        threshold: float | str | None = None,
        top_k: int | None = None,
        classes: Sequence[str] | None = None,
        batch_size: int = 8,
        panoptic_threshold: float | None = None,
        channels: str = RGB,
        on_error: str = RAISE,
    ) -> Any:
        """Detect objects in one image, in a list of images, or in those of a generator.

        Args:
            images: an image, a list of images, or an iterator over images, such as a generator. An image is a file
                path, an http(s) address, a PIL image, a uint8 array [H, W, 3], a uint8 tensor [3, H, W], or a float
                tensor [3, H, W] with values in [0, 1]. Files and PIL images that carry an EXIF orientation are turned
                by it first; the results are in pixels of the upright image.
            threshold: minimum score of a detection, or "best"; None: that of the predictor, by default 0.5.
            top_k: keep at most this many detections per image, those with the highest scores.
            classes: keep only classes with these names, in the panoptic map too: its other pixels become void.
            batch_size: maximum number of images per forward pass.
            panoptic_threshold: a mask enters the panoptic map if its score exceeds this; the default of 0.85 suits a
                fully trained model, early checkpoints score lower. `threshold` and `top_k` do not affect the map.
            channels: the order of the colours of arrays and tensors: "RGB", or "BGR" as OpenCV has it.
            on_error: "raise", or "skip": in a list or from an iterator, an image that cannot be read gives None and
                one warning, and the others go on.

        Returns:
            A `Prediction` for one image, a list of them for a list, an iterator over them for an iterator: it takes
            `batch_size` images at a time, so 1 gives each result before the next image is asked for.

        Raises:
            OSError: a file cannot be read; the message names it.
            ValueError: an image of an unsupported kind, or a setting out of range.
            CheckpointError: the checkpoint has no thresholds for "best".
        """
        threshold = self.threshold if threshold is None else threshold
        minimum = self._minimum(threshold)
        self._check_settings(top_k, batch_size, panoptic_threshold)
        check_channels(channels)
        if on_error not in (RAISE, SKIP):
            raise ValueError(f'on_error must be "{RAISE}" or "{SKIP}", got {printable(repr(on_error), 60)}')
        class_ids = None if classes is None else self.class_ids(classes)
        read = partial(to_upright_rgb, max_pixels=self.max_pixels, channels=channels)
        settings = (minimum, top_k, class_ids, batch_size, panoptic_threshold)
        if isinstance(images, Iterator):
            return predictions_of(images, read, lambda rgb: self._predict(rgb, *settings), batch_size, on_error)
        if not isinstance(images, list | tuple):
            return self._predict([read(images)], *settings)[0]
        if on_error == SKIP:
            return list(predictions_of(images, read, lambda rgb: self._predict(rgb, *settings), batch_size, on_error))
        return self._predict([read(image) for image in images], *settings)

    def _predict(
        self,
        rgb_images: Sequence[Image.Image],
        minimum: float | ClassThresholds,
        top_k: int | None,
        class_ids: Sequence[int] | None,
        batch_size: int,
        panoptic_threshold: float | None,
    ) -> list[Prediction]:
        """The predictions for upright RGB images, whose settings are checked."""
        sizes = [self.resized(image.size) for image in rgb_images]
        found: dict[int, Prediction] = {}
        for batch in same_size_batches(sizes, batch_size) if rgb_images else []:
            outputs, results = self._detect([rgb_images[index] for index in batch])
            chosen = [best_queries(result, minimum, top_k, self._wanted(class_ids)) for result in results]
            panoptic_maps = self._panoptic_postprocessor(panoptic_threshold)
            kept_queries = [queries for queries, _ in chosen]
            masked = with_masks(outputs, kept_queries, panoptic_maps) if "segm" in self.postprocessors else []
            for row, index in enumerate(batch):
                image, (queries, best) = rgb_images[index], chosen[row]
                kept = {name: values[queries] for name, values in results[row].items()}
                names = [class_name(label, self.names) for label in kept["labels"].tolist()]
                masks = self._masks(masked[row], queries, image) if masked else None
                panoptic = self._panoptic(masked[row], image, panoptic_maps, class_ids) if panoptic_maps else None
                more = {"masks": masks, "panoptic": panoptic, "best_score": best}
                found[index] = Prediction(image, **kept, names=names, queries=queries, **more)
        return [found[index] for index in range(len(rgb_images))]

    def attention(self, prediction: Prediction, points: Sequence[tuple[float, float]] = ()) -> Image.Image:
        """Draw where the model looked: the last decoder layer for each of the best detections, and the last encoder
        layer for some points. `models.attention_maps.record_attention` gives the numbers.

        Args:
            prediction: a result of this predictor.
            points: (x, y) in pixels; by default the centres of the best boxes.

        Raises:
            ValueError: a point outside the image, or a model without encoder layers, or an exported one.
        """
        self.check_attention()
        detector = getattr(self.model, "detr", self.model)  # the mask head is not needed
        with torch.inference_mode(), record_attention(detector) as maps:
            detector(self._batch([prediction.image]))
        return attention_sheet(prediction, maps.decoder[-1][0], maps.encoder[-1][0], points)

    def check_attention(self) -> None:
        """ValueError if the model has no attention to draw."""
        if self.is_exported:
            raise ValueError("an exported file gives boxes and masks only, no attention: use the checkpoint")
        if self.args.enc_layers == 0:
            raise ValueError("attention cannot be drawn: the model has no encoder layers")

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (h, w) to which an image of `size` = (w, h) is resized for the model."""
        return get_size_with_aspect_ratio(size, self.args.val_size, self.args.max_size)

    def class_ids(self, names: Sequence[str]) -> list[int]:
        """The category ids of classes, by name; upper and lower case are not distinguished.

        Raises:
            ValueError: the model has no class of that name.
        """
        known: dict[str, list[int]] = defaultdict(list)
        for class_id, name in self.names.items():
            known[name.casefold()].append(class_id)
        unknown = [name for name in names if name.casefold() not in known]
        if unknown:
            raise ValueError(
                f"the model has no class {', '.join(map(repr, unknown))}; its classes are "
                f"{', '.join(self.names.values())}"
            )
        return [class_id for name in names for class_id in known[name.casefold()]]

    def weights_checksum(self) -> int:
        """CRC-32 of all weights and buffers, or of an exported file, to recognise the model by."""
        if self.is_exported:
            return self.model.checksum()
        checksum = 0
        for tensor in self.model.state_dict().values():
            checksum = zlib.crc32(tensor.cpu().contiguous().numpy(), checksum)
        return checksum

    def class_thresholds(self) -> ClassThresholds:
        """The thresholds that "best" stands for.

        Raises:
            CheckpointError: the checkpoint has none; the message says how to get them.
        """
        return ClassThresholds.read(self._thresholds, self._source)

    @property
    def has_thresholds(self) -> bool:
        """Whether the checkpoint holds those of its classes."""
        return self._thresholds["thresholds"] is not None

    def predicted(self, classes: Sequence[str] | None = None) -> dict[int, str]:
        """Id → name of the classes that a call with `classes` returns."""
        if classes is not None:
            return {class_id: self.names[class_id] for class_id in self.class_ids(classes)}
        if not self.is_panoptic:
            return self.names
        is_thing = self.postprocessors["panoptic"].is_thing_map
        return {class_id: name for class_id, name in self.names.items() if is_thing.get(class_id)}

    def _minimum(self, threshold: float | str) -> float | ClassThresholds:
        """The checked threshold; `best` becomes those of the classes."""
        if threshold == BEST:
            return self.class_thresholds()
        if isinstance(threshold, str):
            raise ValueError(f'threshold must be a number in [0, 1] or "{BEST}", got {printable(threshold, 60)!r}')
        return checked_score("threshold", threshold)

    def _check_settings(self, top_k: int | None, batch_size: int, panoptic_threshold: float | None) -> None:
        checked_score("panoptic_threshold", panoptic_threshold or 0)
        if panoptic_threshold is not None and not self.is_panoptic:
            raise ValueError("panoptic_threshold needs a model trained on panoptic data, and this one is not: omit it")
        for name, count in {"top_k": 1 if top_k is None else top_k, "batch_size": batch_size}.items():
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")

    @torch.inference_mode()
    def _detect(self, images: Sequence[Image.Image]) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """The model's outputs for images of equal resized size, and for each image the detections of all queries."""
        sizes = torch.tensor([(image.height, image.width) for image in images], device=self.device)
        forward = getattr(self.model, "on_demand", self.model)  # masks only of the queries that are kept
        outputs = forward(self._batch(images))
        check_finite(outputs["pred_logits"], outputs["pred_boxes"])
        results = self.postprocessors["bbox"](outputs, sizes)
        return outputs, [{name: values.cpu() for name, values in result.items()} for result in results]

    def _batch(self, images: Sequence[Image.Image]) -> Tensor:
        """The model's input [B, 3, H, W] for images of equal resized size."""
        return torch.stack([self.transforms(image, None)[0] for image in images]).to(self.device)

    def _wanted(self, class_ids: Sequence[int] | None) -> Sequence[int] | None:
        """The ids of the classes to detect: by default all, of a panoptic model its things."""
        if class_ids is not None or not self.is_panoptic:
            return class_ids
        return [label for label, is_thing in self.postprocessors["panoptic"].is_thing_map.items() if is_thing]

    def _masks(self, masked: Masked, queries: Tensor, image: Image.Image) -> Tensor:
        """Masks bool [n, H, W] of the given queries only: each has as many pixels as the image."""
        if not len(queries):
            return torch.zeros(0, image.height, image.width, dtype=torch.bool)
        available, outputs = masked
        places = torch.searchsorted(available, queries).to(self.device)
        kept, resized = {"pred_masks": outputs["pred_masks"][:, places]}, self.resized(image.size)
        sizes = [(image.height, image.width)], [resized]
        return self.postprocessors["segm"]([{}], kept, *sizes, padded_size=resized)[0]["masks"][:, 0].bool().cpu()

    def _panoptic_postprocessor(self, threshold: float | None) -> PostProcessPanoptic | None:
        postprocess = self.postprocessors.get("panoptic")
        if postprocess is None or threshold is None:
            return postprocess
        return PostProcessPanoptic(postprocess.is_thing_map, threshold)

    def _panoptic(
        self, masked: Masked, image: Image.Image, maps: PostProcessPanoptic, class_ids: Sequence[int] | None
    ) -> PanopticMap:
        resized = self.resized(image.size)
        result = maps(masked[1], [resized], [(image.height, image.width)], padded_size=resized)[0]
        segment_ids = decode_segment_map(result["png_string"])
        return PanopticMap.of(segment_ids, result["segments_info"], self.names, class_ids)


def load_predictor(path: str | os.PathLike[str], device: str | torch.device = "auto", **settings: Any) -> Predictor:
    """A `Predictor` of a checkpoint or of a file of `tools.export`; a path or an http(s) address.

    Args:
        path: .onnx, .pt2 and .xml are exported files, whatever else a checkpoint.
        device: see `Predictor`.
        settings: further arguments of `Predictor`.
    """
    return Predictor(path, device, **settings)
