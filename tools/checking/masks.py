"""Findings about segmentations, which only training with --masks reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datasets.annotations.masks import CORNERS, check_polygon, check_runs
from tools.checking.entries import PartData
from tools.checking.findings import Finding, Level
from tools.checking.model import ModelFacts


def mask_findings(part: PartData, facts: ModelFacts) -> Iterator[Finding]:
    """Segmentations of one part that cannot be drawn, or cover nothing; nothing if no object has one."""
    bad, thin = [], []
    outlined = sum(bool(annotation.get("segmentation")) for annotation in part.annotations)
    if not outlined:
        return
    for index, annotation in enumerate(part.annotations):
        width, height = part.sizes[part.owners[index]].tolist()
        fault = _fault_of(annotation.get("segmentation"), int(height), int(width))
        if fault:
            bad.append(part.object_place(index, f"{part.class_name(index)} has {fault}"))
        elif fault is None:
            thin.append(part.object_place(index, part.class_name(index)))
    if bad:
        yield part.finding(
            "mask-bad",
            Level.STOPS if facts.with_masks else Level.NOTE,
            "segmentations",
            "cannot be drawn",
            "Training and evaluation with --masks refuse them; boxes alone do not need them. Correct them, or remove "
            "the annotations.",
            bad,
            weight=1.0,
        )
    if thin:
        yield part.finding(
            "mask-empty",
            Level.HURTS if facts.with_masks else Level.NOTE,
            "annotations",
            "[has|have] no segmentation, or one that covers nothing, while others have one",
            "It matters only with --masks: there the masks of these objects are missing. Draw them, or train without "
            "--masks.",
            thin,
            weight=0.6,
        )


def _fault_of(segmentation: Any, height: int, width: int) -> str | None:
    """What is wrong with a segmentation; "" if nothing is, None if it covers nothing."""
    try:
        if not segmentation:
            return None
        if isinstance(segmentation, dict):
            if height and width:
                check_runs(segmentation, height, width)
            return ""
        if not isinstance(segmentation, list | tuple):
            return "a segmentation that is neither a list of polygons nor a run-length code"
        corners = [len(check_polygon(points)) for points in segmentation]
    except ValueError as error:
        return str(error)
    return None if max(corners) < 2 * CORNERS else ""
