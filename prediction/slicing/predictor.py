"""`SlicedPredictor`: a predictor that looks at large pictures in tiles, for objects that are small in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from prediction.inputs import ImageInput, to_upright_rgb
from prediction.predictor import Predictor
from prediction.result import Prediction, class_name
from prediction.slicing.merge import merge
from prediction.slicing.part import Part, confirmed, joined_masks
from prediction.slicing.tiles import Tile, check_slices, shared_by, tiles_of

AT_ONCE = 4  # tiles in a forward pass, or more with a larger batch size


class SlicedPredictor:
    """Finds objects in tiles of a picture and in the whole of it, and merges what was found.

    All tiles have one size. The whole picture adds the objects that are larger than the overlap of two tiles, if a tile
    sees at least a part of them: smaller ones are whole in at least one tile, in more detail. For the same reason, what
    is cut by the edge of a tile and is whole in its neighbour is left to the neighbour. `prediction.slicing.merge`
    merges the rest, by class.

    Everything else is that of the predictor: names, settings, thresholds. A picture that is not larger than a tile
    gives the predictor's own result. The panoptic map of a panoptic model is that of the whole picture.

    Args:
        predictor: a `Predictor`, or what has its call and attributes.
        side: of a tile, in pixels of the picture.
        overlap: the least fraction of the side that neighbouring tiles share.

    Raises:
        ValueError: a side or an overlap out of range.
    """

    def __init__(self, predictor: Predictor, side: int, overlap: float = 0.2):
        check_slices(side, overlap)
        self.predictor, self.side, self.overlap = predictor, side, overlap

    def __getattr__(self, name: str) -> Any:
        if name == "predictor":  # not set yet, such as while it is copied
            raise AttributeError(name)
        return getattr(self.predictor, name)

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput],
        *,
        top_k: int | None = None,
        batch_size: int = 8,
        **settings: Any,
    ) -> Any:
        """Detect objects in one picture or in a list of pictures: see `Predictor`.

        Args:
            images: a picture or a list of pictures.
            top_k: keep at most this many detections of a picture, after merging.
            batch_size: tiles in a forward pass, at least `AT_ONCE`.
            settings: the others of `Predictor`.

        Raises:
            OSError, ValueError, CheckpointError: see `Predictor`.
        """
        if not isinstance(images, list | tuple):
            return self([images], top_k=top_k, batch_size=batch_size, **settings)[0]
        self.predictor([], top_k=top_k, batch_size=batch_size, **settings)  # rejects bad settings
        settings["batch_size"] = max(batch_size, AT_ONCE)
        return [self._predict(to_upright_rgb(image, self.predictor.max_pixels), top_k, settings) for image in images]

    def _predict(self, image: Image.Image, top_k: int | None, settings: dict[str, Any]) -> Prediction:
        tiles = tiles_of(image.size, self.side, self.overlap)
        if len(tiles) == 1:
            return self.predictor([image], top_k=top_k, **settings)[0]
        whole = self.predictor([image], **settings)[0]
        found: list[tuple[Tile, Prediction]] = [((0, 0, *image.size), whole)]
        for start in range(0, len(tiles), settings["batch_size"]):
            batch = tiles[start : start + settings["batch_size"]]
            found += zip(batch, self.predictor([image.crop(tile) for tile in batch], **settings))
        return self._merged(image, whole, found, top_k)

    def _merged(
        self, image: Image.Image, whole: Prediction, found: Sequence[tuple[Tile, Prediction]], top_k: int | None
    ) -> Prediction:
        shared = shared_by([tile for tile, _ in found[1:]])
        parts = [Part.of(view, prediction, image.size, shared) for view, prediction in found]
        parts[0] = parts[0].where(confirmed(parts[0], found[1:]))
        boxes, scores, labels, queries = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "labels", "queries")
        )
        views, cut = torch.cat([part.views for part in parts]), torch.cat([part.cut for part in parts])
        merged, groups = merge(boxes, scores, labels, views, cut)
        merged, groups = merged[:top_k], groups[:top_k]
        leaders = torch.tensor([int(group[0]) for group in groups], dtype=torch.int64)
        masks = None if whole.masks is None else joined_masks(parts, groups, image.size)
        return replace(
            whole,
            boxes=merged,
            scores=torch.stack([scores[group].max() for group in groups]) if groups else scores[:0],
            labels=labels[leaders],
            names=[class_name(label, self.predictor.names) for label in labels[leaders].tolist()],
            queries=queries[leaders],
            masks=masks,
            best_score=max(prediction.best_score for _, prediction in found),
        )
