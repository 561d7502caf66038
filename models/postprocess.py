"""Predictions → detections in the pixels of the original image (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.matcher import at_least_float32
from util.box_ops import box_cxcywh_to_xyxy


class PostProcess(nn.Module):
    """The best class of every query other than "no object". There is no threshold, and boxes are not clipped."""

    @torch.no_grad()
    def forward(self, outputs: dict[str, Tensor], target_sizes: Tensor) -> list[dict[str, Tensor]]:
        """Convert the outputs to the detections of each image.

        Args:
            outputs: `pred_logits` [B, Q, C+1] and `pred_boxes` cxcywh fractions [B, Q, 4].
            target_sizes: (height, width) of each image [B, 2]; the original sizes for evaluation.

        Returns:
            For each image `scores` [Q], `labels` int64 [Q] and `boxes` xyxy in pixels [Q, 4].

        Raises:
            ValueError: sizes that do not fit the batch.
        """
        logits = at_least_float32(outputs["pred_logits"])
        boxes = at_least_float32(outputs["pred_boxes"])
        if target_sizes.shape != (len(logits), 2):
            raise ValueError(
                f"target_sizes has shape {tuple(target_sizes.shape)}, but {len(logits)} images need "
                f"({len(logits)}, 2): pass one (height, width) per image"
            )
        scores, labels = logits.softmax(-1)[..., :-1].max(-1)  # [B, Q]
        height, width = target_sizes.unbind(1)
        scale = torch.stack([width, height, width, height], dim=1)  # [B, 4]
        boxes = box_cxcywh_to_xyxy(boxes) * scale[:, None, :]  # [B, Q, 4]
        return [{"scores": s, "labels": c, "boxes": b} for s, c, b in zip(scores, labels, boxes)]


class PostProcessSegm(nn.Module):
    """The mask of every query, in pixels of the original image.

    Args:
        threshold: a pixel belongs to a mask if its probability exceeds this.
    """

    QUERIES_AT_ONCE = 16  # resized together; limits the memory without changing the result

    def __init__(self, threshold: float = 0.5):
        super().__init__()
        self.threshold = threshold

    @torch.no_grad()
    def forward(
        self,
        results: list[dict[str, Tensor]],
        outputs: dict[str, Tensor],
        orig_target_sizes: Tensor | Sequence[tuple[int, int]],
        max_target_sizes: Tensor | Sequence[tuple[int, int]],
        padded_size: tuple[int, int] | None = None,
    ) -> list[dict[str, Tensor]]:
        """Add `masks` to the detections of each image.

        Args:
            results: from `PostProcess`; modified in place.
            outputs: `pred_masks` logits [B, Q, H/4, W/4].
            orig_target_sizes: (height, width) of the returned masks of each image.
            max_target_sizes: (height, width) of each image as the model saw it, without padding.
            padded_size: (height, width) of the batch; None: the largest height and width of `max_target_sizes`.

        Returns:
            `results` with `masks`, uint8 [Q, 1, height, width] of 0 and 1.

        Raises:
            ValueError: sizes that do not fit the batch.
        """
        originals, processed = torch.as_tensor(orig_target_sizes).tolist(), torch.as_tensor(max_target_sizes).tolist()
        if not len(originals) == len(processed) == len(results):
            raise ValueError(
                f"{len(originals)} original and {len(processed)} processed sizes for {len(results)} images: pass one "
                "of each per image"
            )
        padded = padded_size or tuple(max(sides) for sides in zip(*processed))
        for result, logits, original, (height, width) in zip(results, outputs["pred_masks"], originals, processed):
            parts = []
            for part in at_least_float32(logits)[:, None].split(self.QUERIES_AT_ONCE):  # [q, 1, H/4, W/4]
                part = F.interpolate(part, size=padded, mode="bilinear", align_corners=False)
                masks = (part[..., :height, :width].sigmoid() > self.threshold).byte()
                parts.append(F.interpolate(masks, size=original, mode="nearest"))
            result["masks"] = torch.cat(parts)
        return results
