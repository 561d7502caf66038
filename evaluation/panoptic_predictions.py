"""Panoptic predictions as `PostProcessPanoptic` returns them, checked against the images of the ground truth."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from datasets.annotations.rules import short
from datasets.annotations.segment_maps import MAX_SEGMENT_ID, VOID, decode_segment_map
from datasets.image_files import pixel_limit
from util.files import is_count, plain
from util.pictures.segment_png import encode_png

Prediction = dict[str, Any]


def check_prediction(prediction: Mapping[str, Any], images: Mapping[int, Mapping[str, Any]]) -> Prediction:
    """A copy of a prediction, after checking that it fits its image. The PNG is not decoded.

    Args:
        prediction: image_id; file_name for its PNG file; png_string, the PNG's bytes; segments_info, a list of
            {"id", "category_id", …} with ids from 0.
        images: COCO's `images` entries by id.

    Raises:
        ValueError: the image is unknown, the PNG has another size, or an entry is invalid; the message names the image.
    """
    image_id = int(prediction["image_id"])
    if image_id not in images:
        raise ValueError(
            f"there is a prediction for image {image_id}, but the ground truth has no such image: evaluate with the "
            "annotation file of these images"
        )
    missing = [name for name in ("file_name", "png_string", "segments_info") if name not in prediction]
    if missing:
        raise ValueError(f"the prediction for image {image_id} lacks {', '.join(missing)}")
    name = prediction["file_name"]
    if not isinstance(name, str) or name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise ValueError(
            f"the prediction for image {image_id} has file_name {short(name)}: it must be a name without a folder"
        )
    size, expected = _size(prediction["png_string"], image_id), images[image_id]
    if size != (expected.get("width", size[0]), expected.get("height", size[1])):
        raise ValueError(
            f"the prediction for image {image_id} is {size[0]}x{size[1]} pixels, but the image is "
            f"{expected['width']}x{expected['height']}: give the postprocessor the original sizes"
        )
    segments = [plain(segment) for segment in prediction["segments_info"]]
    ids = [segment.get("id") for segment in segments]
    for number in ids:
        if not is_count(number) or number > MAX_SEGMENT_ID or ids.count(number) > 1:
            raise ValueError(
                f"the prediction for image {image_id} has a segment of id {short(number)}: ids must be unique integers "
                f"from 0 to {MAX_SEGMENT_ID}"
            )
    return {
        "image_id": image_id,
        "file_name": name,
        "png_string": bytes(prediction["png_string"]),
        "segments_info": segments,
    }


def without_unknown(prediction: Prediction, category_ids: set[int]) -> Prediction:
    """The prediction without segments of categories outside `category_ids`; their pixels become void.

    COCO's evaluation rejects such segments, but a model with more classes than the ground truth has categories may
    predict them. Only then is the PNG decoded and encoded again, with the remaining segments renumbered from 1, since
    an id of 0 cannot be distinguished from void.
    """
    known = [segment for segment in prediction["segments_info"] if segment["category_id"] in category_ids]
    if len(known) == len(prediction["segments_info"]):
        return prediction
    ids = decode_segment_map(prediction["png_string"])  # [h, w]
    renumbered = np.full_like(ids, VOID)
    for number, segment in enumerate(known, start=1):
        renumbered[ids == segment["id"]] = number
    segments = [segment | {"id": number} for number, segment in enumerate(known, start=1)]
    return prediction | {"png_string": encode_png(renumbered), "segments_info": segments}


def _size(png: Any, image_id: int) -> tuple[int, int]:
    """(w, h) from the PNG's header; the pixels are not decoded."""
    try:
        with pixel_limit(sys.maxsize), Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            if image.format == "PNG" and image.mode == "RGB":
                return image.size
    except (OSError, TypeError):  # not an image, or not even bytes
        pass
    raise ValueError(f"the prediction for image {image_id} has a png_string that is not the bytes of an RGB PNG")
