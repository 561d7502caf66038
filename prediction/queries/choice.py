"""Which object queries become detections, and the masks of those that need one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from models.fast.masks_on_demand import masks_of
from models.panoptic import PostProcessPanoptic
from util.loading.class_thresholds import ClassThresholds

Masked = tuple[Tensor, dict[str, Tensor]]  # of one image: queries [n], and their outputs [1, n, ...] with masks


def best_queries(
    result: Mapping[str, Tensor],
    minimum: float | ClassThresholds,
    top_k: int | None,
    class_ids: Sequence[int] | None,
) -> tuple[Tensor, float]:
    """The queries [n] whose detections are kept, highest score first; and the highest score of these classes.

    Args:
        result: of one image: `scores` [Q] and `labels` [Q].
        minimum: the least score, or those of the classes.
        top_k: at most this many are kept.
        class_ids: the classes to keep; None: all.
    """
    scores = result["scores"]
    wanted = torch.ones_like(scores, dtype=torch.bool)
    if class_ids is not None:
        wanted &= torch.isin(result["labels"], torch.tensor(class_ids))
    per_class = isinstance(minimum, ClassThresholds)
    keep = wanted & (minimum.reached(scores, result["labels"]) if per_class else scores >= minimum)
    order = scores.where(keep, -1.0).argsort(descending=True, stable=True)
    return order[: int(keep.sum())][:top_k], float(scores[wanted].max()) if wanted.any() else 0.0


@torch.inference_mode()
def with_masks(
    outputs: dict[str, Tensor], chosen: Sequence[Tensor], panoptic_maps: PostProcessPanoptic | None
) -> list[Masked]:
    """For each image the queries that need a mask, those of detections and of the panoptic map.

    Args:
        outputs: of a model with masks, for a batch.
        chosen: for each image the queries of its detections.
        panoptic_maps: makes the panoptic map, if there is one.
    """
    logits = outputs["pred_logits"]
    needed = torch.zeros(logits.shape[:2], dtype=torch.bool)  # [B, Q]
    for row, queries in enumerate(chosen):
        needed[row, queries] = True
    if panoptic_maps is not None:
        needed |= panoptic_maps.kept(logits)[1].cpu()
    queries = [row.nonzero()[:, 0] for row in needed]
    masks = masks_of(outputs, queries)
    check_finite(masks)
    return [
        (own, {"pred_logits": logits[row, own.to(logits.device)][None], "pred_masks": own_masks[None]})
        for row, (own, own_masks) in enumerate(zip(queries, masks.split([len(own) for own in queries])))
    ]


def checked_score(name: str, score: float) -> float:
    """The score; ValueError if it is outside [0, 1]."""
    if not 0 <= score <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {score:g}")
    return score


def check_finite(*outputs: Tensor) -> None:
    """FloatingPointError if outputs of a model are not finite."""
    if not all(output.isfinite().all() for output in outputs):
        raise FloatingPointError("the model's outputs are not finite: use another checkpoint")
