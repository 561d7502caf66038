"""COCO's matching, its precision-recall curves and panoptic quality by hotcoco; the only file that imports hotcoco.

hotcoco (https://pypi.org/project/hotcoco) computes exactly what pycocotools computes, in a fraction of the time. For
boxes and masks it is optional: without it `evaluation.coco_eval` uses pycocotools. Panoptic quality is not in
pycocotools; hotcoco computes it as COCO's panopticapi does.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

REQUIREMENT = "hotcoco>=1.3,<2"


def unavailable_reason() -> str | None:
    """Why hotcoco cannot be used, as the first half of a sentence; None if it can be used."""
    try:
        version = str(import_module("hotcoco").__version__)
    except ImportError as error:
        return f"hotcoco cannot be imported ({error})"
    major, minor = (int(part) for part in version.split(".")[:2])
    if major != 1 or minor < 3:
        return f"hotcoco {version} is installed, but {REQUIREMENT} is required"
    return None


def load_ground_truth(dataset: dict[str, Any]) -> Any:
    """A `hotcoco.COCO` of a COCO data set in memory, with only what the evaluation reads.

    Args:
        dataset: `images`, `annotations` and `categories` as in a COCO instances file.
    """
    from hotcoco import COCO

    images = [{key: image[key] for key in ("id", "width", "height") if key in image} for image in dataset["images"]]
    categories = [{"id": category["id"], "name": str(category.get("name", ""))} for category in dataset["categories"]]
    return COCO({"images": images, "categories": categories, "annotations": dataset["annotations"]})


def accumulate(
    ground_truth: Any, kind: str, params: Any, rows: np.ndarray, segmentation: list[dict[str, Any]]
) -> dict[str, np.ndarray]:
    """Match detections to ground truth and compute the precision-recall curves.

    Args:
        ground_truth: from `load_ground_truth`.
        kind: "bbox" or "segm".
        params: pycocotools' `Params`; all settings but `useSegm` are used.
        rows: float64 [n, 7]: image id, x, y, width, height (pixels), score, category id.
        segmentation: for "segm" a compressed RLE for each row; unused for "bbox".

    Returns:
        precision and scores [T, R, K, A, M], recall [T, K, A, M], float64, with -1 where there is no ground truth;
        T overlap thresholds, R recall thresholds, K categories, A area ranges, M limits on detections per image.
    """
    from hotcoco import COCOeval

    if kind == "segm":
        from hotcoco import mask

        detections = ground_truth.load_res(rows, segmentation=segmentation)
        # load_res sets each area to that of the box; COCO sorts masks by size according to their own area.
        ids = np.arange(1, len(rows) + 1)
        detections.update_anns(ids=ids, area=np.asarray(mask.area(segmentation), dtype=np.float64))
    else:
        detections = ground_truth.load_res(rows)

    evaluation = COCOeval(ground_truth, detections, kind)
    for name in ("imgIds", "catIds", "maxDets"):
        setattr(evaluation.params, name, [int(value) for value in getattr(params, name)])
    for name in ("iouThrs", "recThrs"):
        setattr(evaluation.params, name, [float(value) for value in getattr(params, name)])
    evaluation.params.areaRng = [[float(bound) for bound in bounds] for bounds in params.areaRng]
    evaluation.params.areaRngLbl = list(params.areaRngLbl)
    evaluation.params.useCats = bool(params.useCats)
    evaluation.evaluate()
    evaluation.accumulate()
    curves = evaluation.eval
    return {name: np.asarray(curves[name]) for name in ("precision", "recall", "scores")}


def panoptic_quality(
    ground_truth: dict[str, Any], predictions: dict[str, Any], gt_folder: str | Path, pred_folder: str | Path
) -> dict[str, Any]:
    """Panoptic quality (Kirillov et al. 2019, equation 1) over the images that the ground truth annotates.

    Args:
        ground_truth: `images`, `annotations` and `categories` as in a COCO panoptic file; an area of None is counted
            in the PNG.
        predictions: `annotations` in the same format.
        gt_folder, pred_folder: the folders of their PNG files.

    Returns:
        "All", "Things" and "Stuff": {"pq", "sq", "rq", "n"}, means over the n categories that occur; "per_class":
        category id → {"pq", "sq", "rq", "iou", "tp", "fp", "fn"}. -1 means "nothing to measure".

    Raises:
        ValueError: a PNG contradicts its JSON entry; the message names image and segment.
        OSError: a PNG file cannot be read.
    """
    from hotcoco.panoptic import PanopticEval

    evaluation = PanopticEval(ground_truth, predictions, gt_folder=gt_folder, pred_folder=pred_folder)
    evaluation.evaluate()
    results = evaluation.results()
    return {name: results[name] for name in ("All", "Things", "Stuff", "per_class")}
