"""Images with more objects than can be counted: more than AP's limit of detections, or than the model has queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pycocotools.coco import COCO

from util.text import printable


def more_than_the_limit(coco: COCO, image_ids: Sequence[int], limit: int) -> str | None:
    """A sentence about the images with more than `limit` objects of one class, the most that AP can count; or None."""
    count, largest, first = 0, 0, ""
    for image_id in image_ids:
        objects = _objects(coco, image_id, limit)
        category_id, most = Counter(objects).most_common(1)[0] if objects else (None, 0)
        if most > limit:
            count, largest = count + 1, max(largest, most)
            name = printable(coco.cats.get(category_id, {}).get("name", category_id), 60)
            first = first or f"{_named(coco, image_id)} has {most:,} of class {name}"
    if not count:
        return None
    which = "1 image has" if count == 1 else f"{count:,} images have"
    return (
        f"{which} more than {limit:,} objects of one class, but AP counts at most {limit:,} detections per image and "
        f"class, so that some objects are missed whatever the model finds: {first}. To count them, pass --max_dets "
        f"{largest} (in Python: params.maxDets of the evaluator's coco_eval), and say so beside the results"
    )


def more_than_the_queries(coco: COCO, image_ids: Sequence[int], queries: int) -> str | None:
    """A sentence about the images with more objects than the model has queries; or None."""
    counts = {image_id: len(_objects(coco, image_id, queries)) for image_id in image_ids}
    over = [image_id for image_id, count in counts.items() if count > queries]
    if not over:
        return None
    which = "1 image has" if len(over) == 1 else f"{len(over):,} images have"
    return (
        f"{which} more objects than the model has queries ({queries:,}), so that some are missed whatever it learned: "
        f"{_named(coco, over[0])} has {counts[over[0]]:,}. Train with --num_queries {max(counts.values())} or more to "
        "find them"
    )


def _objects(coco: COCO, image_id: int, limit: int) -> list[int]:
    """The category of each object of an image, without crowd regions; empty if it has at most `limit` annotations."""
    annotations = coco.imgToAnns.get(image_id, ())
    if len(annotations) <= limit:  # nearly always
        return []
    return [annotation["category_id"] for annotation in annotations if not annotation.get("iscrowd")]


def _named(coco: COCO, image_id: int) -> str:
    name = coco.imgs.get(image_id, {}).get("file_name")
    return f"image {image_id}" + (f" ({printable(name, 100)})" if name else "")
