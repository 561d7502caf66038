"""The things of a panoptic data set as COCO instances: ground truth for evaluating boxes and masks."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from datasets.annotations.segment_maps import read_segment_map


def things_as_instances(
    images: Mapping[int, Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
    maps: Iterable[tuple[int, Path, Sequence[Mapping[str, Any]]]],
) -> COCO:
    """A pycocotools index of the thing segments: their masks as run-length codes, and the boxes around them.

    Args:
        images: COCO's `images` entries by id.
        categories: {"id", "name", "isthing"}.
        maps: for each image its id, the path of its PNG, and its segments {"id", "category_id", "iscrowd"}.

    Raises:
        FileNotFoundError, OSError, ValueError: see `read_segment_map`.
    """
    things = {category["id"] for category in categories if category["isthing"]}
    annotations, sizes = [], {}
    for image_id, path, segments in maps:
        ids = read_segment_map(path)  # [h, w]
        sizes[image_id] = ids.shape
        for segment in segments:
            if segment["category_id"] not in things:
                continue
            mask = coco_mask.encode(np.asfortranarray(ids == segment["id"], dtype=np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": segment["category_id"],
                    "iscrowd": segment["iscrowd"],
                    "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
                    "area": float(coco_mask.area(mask)),
                    "bbox": coco_mask.toBbox(mask).tolist(),
                }
            )
    coco = COCO()
    coco.dataset = {
        "images": [dict(image) | dict(zip(("height", "width"), sizes[key])) for key, image in images.items()],
        "categories": [category for category in categories if category["id"] in things],
        "annotations": annotations,
    }
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
