"""Predictions → detections in the pixels of the original image (paper, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.matcher import at_least_float32
from util.box_ops import box_cxcywh_to_xyxy


class PostProcess(nn.Module):
    """Every query's best class, with "no object" left out of the choice; nothing is thresholded or clipped."""

    @torch.no_grad()
    def forward(self, outputs: dict[str, Tensor], target_sizes: Tensor) -> list[dict[str, Tensor]]:
        """Detections of each image.

        Args:
            outputs: `pred_logits` [B, Q, C+1], `pred_boxes` cxcywh fractions [B, Q, 4].
            target_sizes: (height, width) of each image [B, 2]: the original size for evaluation.

        Returns:
            For each image `scores` [Q], `labels` int64 [Q], `boxes` xyxy in pixels [Q, 4].

        Raises:
            ValueError: sizes that do not fit the batch.
        """
        logits = at_least_float32(outputs["pred_logits"])
        boxes = at_least_float32(outputs["pred_boxes"])
        if target_sizes.shape != (len(logits), 2):
            raise ValueError(
                f"target_sizes has shape {tuple(target_sizes.shape)}, but {len(logits)} images need "
                f"({len(logits)}, 2): one (height, width) for each"
            )
        scores, labels = logits.softmax(-1)[..., :-1].max(-1)  # [B, Q]
        height, width = target_sizes.unbind(1)
        scale = torch.stack([width, height, width, height], dim=1)  # [B, 4]
        boxes = box_cxcywh_to_xyxy(boxes) * scale[:, None, :]  # [B, Q, 4]
        return [{"scores": s, "labels": c, "boxes": b} for s, c, b in zip(scores, labels, boxes)]
