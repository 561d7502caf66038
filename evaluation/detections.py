"""Detections as columns: those of many images in a few arrays, and as COCO's list of results.

A Python dict for each detection costs more time and memory than the evaluation itself, so dicts are made only on
request. Legend: n detections; boxes in pixels of the original image.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import torch
from pycocotools import mask as mask_util

Predictions = Mapping[int, Mapping[str, torch.Tensor]]


class Detections(NamedTuple):
    """The detections of one image, or of many images in a row."""

    rows: np.ndarray  # float64 [n, 7]: image id, x, y, width, height, score, category id
    masks: list[dict[str, Any]]  # n compressed RLEs, or empty
    keypoints: list[list[float]]  # n lists of x, y, visibility, x, y, …, or empty


def convert_to_xywh(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes [n, 4] from xyxy to x, y, width, height."""
    return torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1)


def to_columns(predictions: Predictions, kinds: Iterable[str], images: Mapping[int, Any]) -> dict[int, Detections]:
    """Copy predictions to the CPU, one `Detections` for each image.

    Args:
        predictions: image id -> {"scores": [n], "labels": [n], and by kind "boxes": [n, 4] xyxy, "masks": [n, h, w] or
            [n, 1, h, w], "keypoints": [n, J, 3]}; an empty dict means an image without detections.
        kinds: which of "bbox", "segm", "keypoints" to copy; without "bbox" the boxes are zeros.
        images: the COCO images by id; a mask must have its image's height and width.

    Raises:
        ValueError: an unknown image, or tensors that do not fit each other or the image.
        FloatingPointError: a box or a score is not finite.
    """
    kinds = tuple(kinds)
    results = {int(image_id): result for image_id, result in predictions.items()}
    counts = [_count(image_id, result, kinds, images) for image_id, result in results.items()]
    filled = [result for result, count in zip(results.values(), counts, strict=True) if count]
    rows = np.zeros((sum(counts), 7))
    if filled:
        rows[:, 0] = np.repeat(list(results), counts)
        rows[:, 5] = _fetch([result["scores"] for result in filled])
        rows[:, 6] = _fetch([result["labels"] for result in filled])
        if "bbox" in kinds:
            boxes = _fetch([result["boxes"] for result in filled])
            rows[:, 1:3] = boxes[:, :2]
            rows[:, 3] = boxes[:, 2] - boxes[:, 0]  # in the model's precision, as in the published code
            rows[:, 4] = boxes[:, 3] - boxes[:, 1]
        _check_finite(rows)
    columns, first = {}, 0
    for (image_id, result), count in zip(results.items(), counts, strict=True):
        masks = _encode(image_id, result["masks"], images[image_id]) if count and "segm" in kinds else []
        keypoints = result["keypoints"].flatten(start_dim=1).tolist() if count and "keypoints" in kinds else []
        columns[image_id] = Detections(rows[first : first + count], masks, keypoints)
        first += count
    return columns


def concatenate(parts: Iterable[Detections]) -> Detections:
    """All detections in one."""
    parts = list(parts)
    return Detections(
        np.concatenate([np.zeros((0, 7)), *(part.rows for part in parts)]),
        [mask for part in parts for mask in part.masks],
        [points for part in parts for points in part.keypoints],
    )


def keep_categories(detections: Detections, category_ids: Iterable[int]) -> Detections:
    """The detections whose category is in `category_ids`."""
    keep = np.isin(detections.rows[:, 6], list(category_ids))
    if keep.all():  # nearly always
        return detections
    return Detections(
        detections.rows[keep], list(compress(detections.masks, keep)), list(compress(detections.keypoints, keep))
    )


def pack(columns: Mapping[int, Detections]) -> dict[str, Any]:
    """Detections by image id in a few arrays, to be sent to another process; `unpack` restores them exactly.

    An array is stored in a smaller type if no number changes: a detection of a float32 model takes 24 bytes, not 56.
    """
    rows, masks, keypoints = concatenate(columns.values())
    runs = [mask["counts"].encode("utf-8") for mask in masks]
    return {
        "image_ids": np.array(list(columns), dtype=np.int64),  # [I]
        "counts": _narrow(np.array([len(part.rows) for part in columns.values()], dtype=np.int64), np.int32),  # [I]
        "boxes": _narrow(rows[:, 1:5], np.float32),  # [n, 4]
        "scores": _narrow(rows[:, 5], np.float32),  # [n]
        "labels": _narrow(rows[:, 6], np.int32),  # [n]
        "mask_sizes": _narrow(np.array([mask["size"] for mask in masks], dtype=np.int64).reshape(-1, 2), np.int32),
        "mask_lengths": _narrow(np.array([len(run) for run in runs], dtype=np.int64), np.int32),  # [n] or [0]
        "mask_runs": b"".join(runs),
        "point_lengths": _narrow(np.array([len(points) for points in keypoints], dtype=np.int64), np.int32),
        "points": _narrow(np.array([value for points in keypoints for value in points], np.float64), np.float32),
    }


def unpack(packed: Mapping[str, Any]) -> dict[int, Detections]:
    """What was passed to `pack`."""
    image_ids, counts = packed["image_ids"], packed["counts"]
    columns = (np.repeat(image_ids, counts)[:, None], packed["boxes"], packed["scores"][:, None])
    rows = np.concatenate([column.astype(np.float64) for column in (*columns, packed["labels"][:, None])], axis=1)
    masks = [
        {"size": size, "counts": run.decode("utf-8")}
        for size, run in zip(packed["mask_sizes"].tolist(), _split(packed["mask_runs"], packed["mask_lengths"]))
    ]
    keypoints = _split(packed["points"].astype(np.float64).tolist(), packed["point_lengths"])
    ends = np.cumsum(counts).tolist()
    parts = {image_id: slice(end - n, end) for image_id, n, end in zip(image_ids.tolist(), counts.tolist(), ends)}
    return {image_id: Detections(rows[part], masks[part], keypoints[part]) for image_id, part in parts.items()}


def to_results(detections: Detections, kind: str) -> list[dict[str, Any]]:
    """COCO's results format, one dict for each detection: https://cocodataset.org/#format-results."""
    regions: Iterable[Any]
    if kind == "bbox":
        key, regions = "bbox", detections.rows[:, 1:5].tolist()
    elif kind == "segm":
        key, regions = "segmentation", (dict(mask) for mask in detections.masks)
    else:
        key, regions = "keypoints", detections.keypoints
    return [
        {"image_id": int(row[0]), "category_id": int(row[6]), key: region, "score": row[5]}
        for row, region in zip(detections.rows.tolist(), regions, strict=True)
    ]


def _narrow(values: np.ndarray, dtype: type) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # the comparison below detects these
        small = values.astype(dtype)
    return small if np.array_equal(small, values) else values


def _split(values: Any, lengths: np.ndarray) -> list[Any]:
    """A list or bytes, split into pieces of these lengths."""
    return [values[end - length : end] for length, end in zip(lengths.tolist(), np.cumsum(lengths).tolist())]


def _count(image_id: int, result: Mapping[str, torch.Tensor], kinds: Sequence[str], images: Mapping[int, Any]) -> int:
    """Number of detections of an image, after checking that its tensors agree on it."""
    if image_id not in images:
        raise ValueError(
            f"there are predictions for image {image_id}, but the ground truth has no such image: "
            "evaluate with the annotation file of these images"
        )
    if not result:
        return 0
    by_kind = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
    names = ["scores", "labels", *(by_kind[kind] for kind in kinds)]
    missing = [name for name in names if name not in result]
    if missing:
        raise ValueError(f"the predictions for image {image_id} lack {', '.join(missing)}: required are {names}")
    count = result["scores"].shape[0]
    if any(result[name].shape[0] != count for name in names):
        lengths = {name: len(result[name]) for name in names}
        raise ValueError(f"the predictions for image {image_id} differ in length: {lengths}")
    return count


def _fetch(tensors: list[torch.Tensor]) -> np.ndarray:
    """All rows in one transfer to the CPU; half-precision types are raised to float32."""
    rows = torch.cat(tensors).detach()
    return (rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows).cpu().numpy()


def _check_finite(rows: np.ndarray) -> None:
    # An overlap of NaN is not below any threshold: COCO's matching would accept such a box.
    if np.isfinite(rows).all():
        return
    bad = np.flatnonzero(~np.isfinite(rows[:, 1:6]).all(axis=1))
    if len(bad):
        image_id, *box, score, label = rows[bad[0]].tolist()
        raise FloatingPointError(
            f"image {image_id:.0f} has a detection of class {label:.0f} with box {box} (x, y, width, height) and score "
            f"{score}: look for NaN or infinity in the model's weights or outputs"
        )


def _encode(image_id: int, masks: torch.Tensor, image: Mapping[str, Any]) -> list[dict[str, Any]]:
    size = tuple(masks.shape[-2:])
    expected = (image.get("height", size[0]), image.get("width", size[1]))
    if size != expected or math.prod(masks.shape[1:]) != math.prod(size):
        raise ValueError(
            f"the masks of image {image_id} have shape {list(masks.shape)}, but must have shape [n, h, w] or "
            f"[n, 1, h, w] with the image's size, (h, w) = {expected}"
        )
    masks = masks.reshape(-1, *size)
    covered = (masks if masks.dtype == torch.bool else masks > 0.5).cpu().numpy()  # [n, h, w]
    # One at a time: encoding needs a column-major copy, and copies of a hundred masks are large.
    rles = (mask_util.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in covered)
    return [{"size": rle["size"], "counts": rle["counts"].decode("utf-8")} for rle in rles]
