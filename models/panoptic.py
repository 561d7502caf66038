"""Predicted masks → a panoptic map, in which every pixel belongs to one segment.

Paper, section 4.4; Kirillov et al., "Panoptic Segmentation" (CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from models.fast.masks_on_demand import masks_of
from models.matcher import at_least_float32
from util.pictures.segment_png import encode_png

MIN_AREA = 5  # pixels; smaller segments are treated as noise


class PostProcessPanoptic(nn.Module):
    """Assigns each pixel to the mask with the highest logit there, among masks whose class is confident enough.

    Each thing is a separate segment; all stuff of one class is one segment.

    Args:
        is_thing_map: class id → whether the class is a thing (countable) or stuff.
        threshold: masks are kept if the probability of their class exceeds this.
    """

    def __init__(self, is_thing_map: Mapping[int, bool], threshold: float = 0.85):
        super().__init__()
        self.is_thing_map = dict(is_thing_map)
        self.threshold = threshold

    @torch.no_grad()
    def forward(
        self,
        outputs: dict[str, Tensor],
        processed_sizes: Tensor | Sequence[tuple[int, int]],
        target_sizes: Tensor | Sequence[tuple[int, int]] | None = None,
        padded_size: tuple[int, int] | None = None,
    ) -> list[dict[str, Any]]:
        """The panoptic map of each image.

        Args:
            outputs: `pred_logits` [B, Q, C+1] and `pred_masks` logits [B, Q, H/4, W/4]. Of masks on demand only
                the kept ones are computed, see `DETRsegm.on_demand`.
            processed_sizes: (height, width) of each image as the model saw it, without padding.
            target_sizes: (height, width) of each returned map; None: the processed sizes.
            padded_size: (height, width) of the batch; None: the largest height and width of the processed sizes.

        Returns:
            For each image `png_string`, a PNG file that holds the segment id of each pixel as R + 256 G + 65536 B, and
            `segments_info`, [{"id", "isthing", "category_id", "area"}] with ids from 0 and areas in pixels. If no mask
            is kept, the map is 0 everywhere and there are no segments.

        Raises:
            ValueError: sizes that do not fit the batch, or a predicted class that `is_thing_map` lacks.
        """
        processed = _size_pairs(processed_sizes)
        targets = processed if target_sizes is None else _size_pairs(target_sizes)
        logits = outputs["pred_logits"]
        if not len(processed) == len(targets) == len(logits):
            raise ValueError(
                f"{len(processed)} processed and {len(targets)} target sizes for {len(logits)} images: pass one of "
                "each per image"
            )
        padded = padded_size or tuple(max(sides) for sides in zip(*processed))
        labels, keep = self.kept(logits)
        queries = [row.nonzero()[:, 0] for row in keep]  # of each image
        masks = masks_of(outputs, queries).split([len(chosen) for chosen in queries])
        return [
            self._panoptic_map(labels[i][chosen].tolist(), own, padded, processed[i], targets[i])
            for i, (chosen, own) in enumerate(zip(queries, masks))
        ]

    @torch.no_grad()
    def kept(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable class of each query [B, Q], and whether the query's mask enters the map, bool [B, Q].

        Args:
            logits: [B, Q, C+1].
        """
        scores, labels = at_least_float32(logits).softmax(-1).max(-1)
        return labels, (labels != logits.shape[-1] - 1) & (scores > self.threshold)

    def _panoptic_map(
        self, labels: list[int], masks: Tensor, padded: tuple[int, int], size: tuple[int, int], target: tuple[int, int]
    ) -> dict[str, Any]:
        """The map of one image, from the kept masks [n, h, w] and their classes."""
        is_thing = [self._is_thing(label) for label in labels]
        merged_into = np.arange(len(labels))  # mask → the mask whose segment it joins; for stuff the first of its class
        for index, label in enumerate(labels):
            if not is_thing[index]:
                merged_into[index] = labels.index(label)
        if labels:
            masks = F.interpolate(at_least_float32(masks)[:, None], size=padded, mode="bilinear")[:, 0]
            masks = masks[:, : size[0], : size[1]]
        kept = np.arange(len(labels))
        while len(kept):
            ids = merged_into[masks.argmax(0).cpu().numpy()]  # [h, w]
            ids = _resize(ids, target)
            areas = np.bincount(ids.ravel(), minlength=len(kept))
            large = areas >= MIN_AREA
            if large.all():
                segments = [
                    {"id": i, "isthing": is_thing[k], "category_id": labels[k], "area": int(area)}
                    for i, (k, area) in enumerate(zip(kept.tolist(), areas))
                ]
                return {"png_string": encode_png(ids), "segments_info": segments}
            kept, masks = kept[large], masks[torch.from_numpy(large).to(masks.device)]
            merged_into = np.arange(len(kept))  # as published, stuff is not merged again
        return {"png_string": encode_png(np.zeros(target, dtype=np.int64)), "segments_info": []}

    def _is_thing(self, label: int) -> bool:
        if label not in self.is_thing_map:
            raise ValueError(
                f"class {label} was predicted, but is_thing_map does not contain it: pass an is_thing_map of all "
                "classes of the model"
            )
        return bool(self.is_thing_map[label])


def _size_pairs(sizes: Tensor | Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    rows = sizes.tolist() if isinstance(sizes, Tensor) else sizes
    return [(int(height), int(width)) for height, width in rows]


def _resize(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest-neighbour resize to (height, width)."""
    image = Image.fromarray(ids.astype(np.int32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.NEAREST)).astype(np.int64)
