"""Predicted masks → one panoptic map (paper, section 4.4, and Kirillov et al., 2019): every pixel in one segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from models.matcher import at_least_float32
from util.pictures.segment_png import encode_png

SMALLEST = 5  # pixels of a segment; fewer are taken for noise


class PostProcessPanoptic(nn.Module):
    """Each pixel goes to the surest of the masks that are sure of their class; stuff of one class is one segment.

    Args:
        is_thing_map: class id → whether it is a thing, which is counted, or stuff, which is not.
        threshold: probability that a mask's class must exceed.
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
            outputs: `pred_logits` [B, Q, C+1] and `pred_masks` logits [B, Q, H/4, W/4].
            processed_sizes: (height, width) of each image as the model saw it, without padding.
            target_sizes: (height, width) of each map; None: the processed sizes.
            padded_size: (height, width) of the batch; None: the largest of the processed sizes.

        Returns:
            For each image `png_string`, a PNG whose R + 256 G + 65536 B is the segment's id at each pixel, and
            `segments_info`, [{"id", "isthing", "category_id", "area"}] with ids from 0 and areas in pixels. Where
            nothing is kept the map is 0 everywhere and there are no segments.

        Raises:
            ValueError: sizes that do not fit the batch, or a class of which it is not known whether it is a thing.
        """
        processed, targets = _pairs(processed_sizes), _pairs(processed_sizes if target_sizes is None else target_sizes)
        logits, masks = outputs["pred_logits"], outputs["pred_masks"]
        if not len(processed) == len(targets) == len(logits):
            raise ValueError(
                f"{len(processed)} processed and {len(targets)} target sizes for {len(logits)} images: pass one each"
            )
        padded = padded_size or tuple(max(sides) for sides in zip(*processed))
        scores, labels = at_least_float32(logits).softmax(-1).max(-1)  # [B, Q]
        keep = (labels != logits.shape[-1] - 1) & (scores > self.threshold)
        return [
            self._paint(labels[i][keep[i]].tolist(), masks[i][keep[i]], padded, processed[i], targets[i])
            for i in range(len(logits))
        ]

    def _paint(
        self, labels: list[int], masks: Tensor, padded: tuple[int, int], size: tuple[int, int], target: tuple[int, int]
    ) -> dict[str, Any]:
        """One image's map, from the masks [n, h, w] that are kept and their classes."""
        is_thing = [self._is_thing(label) for label in labels]
        painter = np.arange(len(labels))  # mask → the mask whose id it paints: the first of its class for stuff
        for index, label in enumerate(labels):
            if not is_thing[index]:
                painter[index] = labels.index(label)
        if labels:
            masks = F.interpolate(at_least_float32(masks)[:, None], size=padded, mode="bilinear")[:, 0]
            masks = masks[:, : size[0], : size[1]]
        alive = np.arange(len(labels))
        while len(alive):
            ids = painter[masks.argmax(0).cpu().numpy()]  # [h, w]
            ids = _resize(ids, target)
            areas = np.bincount(ids.ravel(), minlength=len(alive))
            large = areas >= SMALLEST
            if large.all():
                segments = [
                    {"id": i, "isthing": is_thing[k], "category_id": labels[k], "area": int(area)}
                    for i, (k, area) in enumerate(zip(alive.tolist(), areas))
                ]
                return {"png_string": encode_png(ids), "segments_info": segments}
            alive, masks = alive[large], masks[torch.from_numpy(large).to(masks.device)]
            painter = np.arange(len(alive))
        return {"png_string": encode_png(np.zeros(target, dtype=np.int64)), "segments_info": []}

    def _is_thing(self, label: int) -> bool:
        if label not in self.is_thing_map:
            raise ValueError(
                f"class {label} is predicted, but of {len(self.is_thing_map)} known classes none has that id: pass an "
                "is_thing_map of all the model's classes"
            )
        return bool(self.is_thing_map[label])


def _pairs(sizes: Tensor | Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    rows = sizes.tolist() if isinstance(sizes, Tensor) else sizes
    return [(int(height), int(width)) for height, width in rows]


def _resize(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """To (height, width), each pixel from the nearest one."""
    image = Image.fromarray(ids.astype(np.int32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.NEAREST)).astype(np.int64)
