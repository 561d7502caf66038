"""Writing small COCO panoptic data sets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.helpers.paths import SHARED_DATA
from util.pictures.segment_png import encode_png

SHARED = SHARED_DATA / "coco_panoptic100"
CATEGORIES = [{"id": 7, "name": "dog", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}]
HEIGHT, WIDTH = 30, 40


def segment(id: int, /, **fields: Any) -> dict[str, Any]:
    """A complete segment; fields given as None are omitted."""
    complete = {"id": id, "category_id": 7, "iscrowd": 0, "area": 100, "bbox": [0, 0, 1, 1]} | fields
    return {key: value for key, value in complete.items() if value is not None}


def map_of(*regions: tuple[int, slice, slice]) -> np.ndarray:
    """Segment ids [HEIGHT, WIDTH] of regions (id, rows, columns); later ones cover earlier ones."""
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    for number, rows, columns in regions:
        ids[rows, columns] = number
    return ids


def write_panoptic(
    folder: Path, samples: Mapping[int, tuple[np.ndarray, list[dict[str, Any]]]], /, **parts: Any
) -> tuple[Path, Path, Path]:
    """Write noise images, segment maps and the annotation file of `samples`, image id → (ids [h, w], segments).

    The file lists images by descending and annotations by ascending id; `parts` replace its entries. Returns
    (image folder, folder of the maps, annotation file).
    """
    images, maps = folder / "images", folder / "maps"
    for each in (images, maps):
        each.mkdir(parents=True, exist_ok=True)
    entries, annotations = [], []
    for number in sorted(samples):
        ids, segments = samples[number]
        noise = np.random.RandomState(number).randint(0, 256, (*ids.shape, 3)).astype(np.uint8)
        Image.fromarray(noise).save(images / f"{number}.png")
        (maps / f"map{number}.png").write_bytes(encode_png(ids))
        entries.insert(0, {"id": number, "file_name": f"{number}.png", "width": ids.shape[1], "height": ids.shape[0]})
        annotations.append({"image_id": number, "file_name": f"map{number}.png", "segments_info": segments})
    data = {"images": entries, "annotations": annotations, "categories": CATEGORIES} | parts
    ann_file = folder / "panoptic.json"
    ann_file.write_text(json.dumps(data))
    return images, maps, ann_file
