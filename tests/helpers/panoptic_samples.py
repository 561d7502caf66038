"""Panoptic quality in plain NumPy, and predictions to test with.

The rules are those of COCO's panopticapi: https://cocodataset.org/#panoptic-eval.
"""

import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets.annotations.panoptic import PanopticAnnotations
from datasets.annotations.segment_maps import read_segment_map
from util.pictures.segment_png import encode_png


def plain_panoptic_quality(truth: PanopticAnnotations, folder: Path, predictions: list[dict[str, Any]]) -> dict:
    """All, Things and Stuff as `PanopticEvaluator.summarize` returns them; -1 where no category occurs."""
    by_image = {prediction["image_id"]: prediction for prediction in predictions}
    iou, hits, misses, alarms = (defaultdict(float) for _ in range(4))  # by category
    for image_id, annotation in truth.annotations.items():
        prediction = by_image[image_id]
        with Image.open(io.BytesIO(prediction["png_string"])) as image:
            found = np.asarray(image).astype(np.int64) @ [1, 256, 65536]  # [h, w]
        objects = {segment["id"]: segment for segment in annotation["segments_info"]}
        guesses = {segment["id"]: segment["category_id"] for segment in prediction["segments_info"]}
        wanted = read_segment_map(folder / annotation["file_name"]).astype(np.int64)
        pairs, counts = np.unique(wanted << 24 | found, return_counts=True)
        shared = {(pair >> 24, pair & 0xFFFFFF): count for pair, count in zip(pairs.tolist(), counts.tolist())}
        void = {guess: shared.get((0, guess), 0) for guess in guesses}
        area = dict(zip(*(column.tolist() for column in np.unique(found, return_counts=True)), strict=True))

        matched_objects, matched_guesses = set(), set()
        for (number, guess), common in shared.items():
            object_ = objects.get(number)
            if object_ is None or guess not in guesses or object_["iscrowd"]:
                continue
            if object_["category_id"] != guesses[guess]:
                continue
            overlap = common / (area[guess] + object_["area"] - common - void[guess])
            if overlap > 0.5:
                iou[guesses[guess]] += overlap
                hits[guesses[guess]] += 1
                matched_objects.add(number)
                matched_guesses.add(guess)
        crowds = {object_["category_id"]: number for number, object_ in objects.items() if object_["iscrowd"]}
        for number, object_ in objects.items():
            if number not in matched_objects and not object_["iscrowd"]:
                misses[object_["category_id"]] += 1
        for guess, category in guesses.items():
            excused = void[guess] + shared.get((crowds.get(category), guess), 0)
            if guess not in matched_guesses and excused / area[guess] <= 0.5:
                alarms[category] += 1

    results = {}
    for name, kinds in (("All", (0, 1)), ("Things", (1,)), ("Stuff", (0,))):
        rows = []
        for category in truth.categories:
            key = category["id"]
            weight = hits[key] + 0.5 * alarms[key] + 0.5 * misses[key]
            if category["isthing"] in kinds and weight:
                rows.append((iou[key] / weight, iou[key] / hits[key] if hits[key] else 0.0, hits[key] / weight))
        means = np.mean(rows, axis=0).tolist() if rows else [-1.0] * 3
        results[name] = dict(zip(("pq", "sq", "rq"), means, strict=True)) | {"n": len(rows)}
    return results


def prediction_of(image_id: int, ids: np.ndarray, categories: dict[int, int]) -> dict[str, Any]:
    """A prediction as from `PostProcessPanoptic` and `Evaluation`; `categories`: segment id → category id."""
    segments = [{"id": number, "isthing": True, "category_id": key, "area": 1} for number, key in categories.items()]
    return {
        "image_id": image_id,
        "file_name": f"{image_id:012d}.png",
        "png_string": encode_png(ids),
        "segments_info": segments,
    }


def perturbed(truth: PanopticAnnotations, folder: Path, seed: int = 0) -> list[dict[str, Any]]:
    """Shifted ground truth with ids from 0, as from the postprocessor. Some segments are missing, have a wrong class or
    overlap void and crowds; every ninth image is all void, every fifth does not list the segment with id 0."""
    random = np.random.default_rng(seed)
    category_ids = [category["id"] for category in truth.categories]
    predictions = []
    for position, (image_id, annotation) in enumerate(truth.annotations.items()):
        wanted = read_segment_map(folder / annotation["file_name"])
        shift = (random.integers(-9, 10, 2) * (0.002 * min(wanted.shape))).astype(int)
        moved = np.roll(wanted, shift, axis=(0, 1))
        found = np.full_like(wanted, 0)
        categories = {}
        for segment in annotation["segments_info"]:
            if random.random() < 0.9:
                number = len(categories)
                found[moved == segment["id"]] = number
                wrong = random.random() < 0.12
                categories[number] = int(random.choice(category_ids)) if wrong else segment["category_id"]
        if position % 9 == 4:
            found[:], categories = 0, {}
        if position % 5 == 0:
            categories.pop(0, None)
        present = set(np.unique(found).tolist())
        categories = {number: category for number, category in categories.items() if number in present}
        predictions.append(prediction_of(image_id, found, categories))
    return predictions
