"""Writing small COCO data sets, and capturing the warnings that reading them logs."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from util.logging import get_logger

CATEGORIES = [{"id": 2, "name": "cat"}, {"id": 7, "name": "dog"}]


@contextmanager
def captured_warnings() -> Iterator[list[str]]:
    """Collect the warnings that are logged, as messages."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    get_logger().addHandler(handler)
    try:
        yield lines
    finally:
        get_logger().removeHandler(handler)


def annotation(id: int, image_id: int, bbox: list[float], /, **fields: Any) -> dict[str, Any]:
    """A complete annotation (`bbox` is xywh in pixels); fields given as None are omitted."""
    x, y, w, h = bbox
    complete = {
        "id": id,
        "image_id": image_id,
        "category_id": 7,
        "bbox": bbox,
        "area": w * h,
        "iscrowd": 0,
        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
    } | fields
    return {key: value for key, value in complete.items() if value is not None}


def write_coco(
    folder: Path, annotations: list[dict[str, Any]], /, count: int = 3, size: tuple[int, int] = (40, 30), **parts: Any
) -> tuple[Path, Path]:
    """Write noise images 1.png to `count`.png of `size` = (w, h), pixels, and an annotation file.

    `parts` replace the file's entries; None removes one. Returns (image folder, annotation file).
    """
    image_folder = folder / "images"
    image_folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number in range(1, count + 1):
        noise = np.random.RandomState(number).randint(0, 256, (size[1], size[0], 3)).astype(np.uint8)
        Image.fromarray(noise).save(image_folder / f"{number}.png")
        entries.append({"id": number, "file_name": f"{number}.png", "width": size[0], "height": size[1]})
    data = {"info": {}, "images": entries, "annotations": annotations, "categories": CATEGORIES} | parts
    ann_file = folder / "instances.json"
    ann_file.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    return image_folder, ann_file
