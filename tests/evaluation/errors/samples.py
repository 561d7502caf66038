"""Hand-made detections of hand-made objects, for tests of the kinds of errors."""

import torch

from evaluation.findings import MatchSummary, summarize_matches
from tests.helpers.coco_samples import coco_of, evaluated

CAT, DOG, COW = 1, 2, 3
NAMES = {CAT: "cat", DOG: "dog", COW: "cow"}


def summary_of(objects: dict[int, list], detections: dict[int, list], names: dict[int, str] = NAMES) -> MatchSummary:
    """The evaluation of images, image id → objects and detections.

    An object is (class, x, y, width, height), or with a last True a crowd region; a detection is (class, score, x, y,
    width, height).
    """
    annotations = []
    for image_id, found in objects.items():
        for label, x, y, w, h, *crowd in found:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(bool(crowd)),
                }
            )
    coco = coco_of(
        {
            "images": [{"id": i, "file_name": f"{i}.png", "width": 400, "height": 300} for i in objects],
            "categories": [{"id": i, "name": name} for i, name in names.items()],
            "annotations": annotations,
        }
    )
    predictions = {
        image_id: {
            "labels": torch.tensor([d[0] for d in found], dtype=torch.int64),
            "scores": torch.tensor([d[1] for d in found], dtype=torch.float64),
            "boxes": torch.tensor([[x, y, x + w, y + h] for _, _, x, y, w, h in found], dtype=torch.float64),
        }
        if found
        else {}
        for image_id, found in ((image_id, detections.get(image_id, [])) for image_id in objects)
    }
    return summarize_matches(evaluated(coco, predictions, "auto"))
