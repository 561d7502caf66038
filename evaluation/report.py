"""The files of an evaluation: numbers, curves, detections and pictures in `eval/`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from evaluation.coco_eval import CocoEvaluator
from evaluation.detections import Detections
from evaluation.errors.content import errors_content
from evaluation.findings import IOU, THRESHOLDS, MatchSummary, ThresholdSweep, summarize_matches
from evaluation.pictures import draw_evaluation
from evaluation.summary import metric_names
from util.checkpoint import save_checkpoint
from util.dist import is_main_process
from util.files import write_atomically, write_json
from util.logging import get_logger

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CHUNK = 10_000  # detections that are formatted together
F1_NOTE = (
    "counted at IoU 0.5 by COCO's rules, for detections with score >= threshold; overall: the detections of all "
    "classes together; right: true positives; null: nothing to measure; best: the threshold with the highest F1"
)
CONFUSION_NOTE = (
    "rows: truth, columns: prediction, the last of each: background (false positives, missed objects); detections "
    "with score >= threshold, which has the best F1, are matched in the order of falling scores, each to the unmatched "
    "object with the largest IoU of at least 0.5, whatever its class; crowd regions, and detections in them that match "
    "nothing else, are left out"
)


def write_evaluation(
    folder: str | Path,
    evaluator: CocoEvaluator,
    *,
    epoch: int | None,
    batch_size: int,
    training: bool = True,
    image_folder: str | Path | None = None,
    matches: MatchSummary | None = None,
) -> dict[str, float | None]:
    """Write the results of an evaluation, after `evaluator.summarize()`; processes other than the main one do nothing.

    In `folder`:
        eval/latest.pth: precision, recall and score arrays in the published format, every 50 epochs also as
            eval/050.pth and so on; eval.pth instead when not training.
        eval/per_class.json: the 12 numbers, as a list and by name, and AP, AP50 and AR of each class; -1 without
            ground truth. If masks were evaluated, theirs under "masks".
        eval/f1.json: precision, recall and F1 over score thresholds at IoU 0.5, overall and by class, and the best.
        eval/confusion.json: the confusion matrix at the best threshold; of more than 500 classes its counts above 0.
        eval/errors.json: the kinds of errors, what each costs, and the worst images, see `evaluation.errors`.
        eval/detections.json: the boxes of all detections of known categories, a results file for `COCO.loadRes`.
        eval/segmentations.json: if masks were evaluated, the same for their masks.
        eval/*.png: per_class, pr_curves, f1, confusion, and with `image_folder` detections: a few of the images.

    Of more than 500 categories, the curves hold only those with ground truth (`category_ids` in the .pth file), F1 and
    the confusion matrix only those that occur.

    Every file is replaced atomically. A picture that cannot be drawn is left out with a warning.

    Args:
        folder: the run's output folder.
        evaluator: an evaluator of boxes.
        epoch: the last finished epoch, None if unknown.
        batch_size: images per process; DETR's AP depends on it because images are padded to the batch's size.
        training: False for an evaluation outside of training.
        image_folder: the folder that the images' `file_name`s are relative to.
        matches: `summarize_matches(evaluator)`, if it is known.

    Returns:
        `threshold`, `f1`, `precision` and `recall` at the best F1 overall, all None if there is no true positive. Use
        this threshold for prediction. Empty on processes other than the main one.

    Raises:
        ValueError: `evaluator` has not evaluated boxes.
        OSError: a file cannot be written.
    """
    if not is_main_process():
        return {}
    per_class = evaluator.per_class()
    folder, result = Path(folder), evaluator.coco_eval["bbox"]
    names = metric_names(result.params.maxDets)
    about, numbers = {"epoch": epoch, "batch_size": batch_size}, dict(zip(names, result.stats.tolist()))
    arrays = {name: result.eval[name] for name in ("precision", "recall", "scores")}
    arrays["counts"] = list(result.eval["counts"])
    if len(result.eval["params"].catIds) < len(per_class):  # only those that occur have curves
        arrays["category_ids"] = [int(category_id) for category_id in result.eval["params"].catIds]
    for file in _curve_files(epoch, training):
        save_checkpoint(folder / file, arrays)
    folder = folder / "eval"
    summary = {"stats": result.stats.tolist(), "numbers": numbers, "per_class": per_class}
    if "segm" in evaluator.iou_types:
        masks = evaluator.coco_eval["segm"]
        mask_numbers = dict(zip(metric_names(masks.params.maxDets), masks.stats.tolist()))
        summary["masks"] = {"numbers": mask_numbers, "per_class": evaluator.per_class("segm")}
    write_json(folder / "per_class.json", about | summary)

    matches = summarize_matches(evaluator) if matches is None else matches
    write_atomically(folder / "detections.json", partial(_write_results, matches.detections))
    if "segm" in evaluator.iou_types:
        write_atomically(folder / "segmentations.json", partial(_write_results, matches.detections, masks=True))
    write_json(folder / "f1.json", about | _f1_content(matches))
    write_json(folder / "confusion.json", about | _confusion_content(matches))
    write_json(folder / "errors.json", about | errors_content(matches, evaluator.coco_gt, len(evaluator.img_ids)))
    draw_evaluation(folder, evaluator, matches, numbers, image_folder)

    best = matches.overall.best
    if best is None:
        get_logger().info(f"no detection matches an object at IoU {IOU}; numbers and pictures are in {folder}")
        return dict.fromkeys(("threshold", "f1", "precision", "recall"))
    at = f"precision {best['precision']:.3f}, recall {best['recall']:.3f}"
    get_logger().info(
        f"best F1 {best['f1']:.3f} at score {best['threshold']:g} ({at}); numbers and pictures are in {folder}"
    )
    return best


def _curve_files(epoch: int | None, training: bool) -> list[str]:
    if not training:
        return ["eval.pth"]
    return ["eval/latest.pth"] + ([f"eval/{epoch:03}.pth"] if epoch is not None and epoch % 50 == 0 else [])


def _f1_content(matches: MatchSummary) -> dict[str, Any]:
    classes = zip(matches.ids, matches.names, matches.classes)
    return {
        "iou": IOU,
        "note": F1_NOTE,
        "thresholds": THRESHOLDS,
        "overall": _curves(matches.overall),
        "per_class": [{"id": i, "name": name, **_curves(sweep)} for i, name, sweep in classes],
        **_left_out(matches),
    }


def _left_out(matches: MatchSummary) -> dict[str, int]:
    """The number of categories that a file leaves out because they do not occur, if there are any."""
    return {"categories_that_do_not_occur": matches.absent} if matches.absent else {}


def _curves(sweep: ThresholdSweep) -> dict[str, Any]:
    counts = sweep.counts
    arrays = {"f1": counts.f1, "precision": counts.precision, "recall": counts.recall}
    lists = {name: [None if np.isnan(x) else x for x in array.tolist()] for name, array in arrays.items()}
    totals = {"objects": counts.objects, "detections": counts.detections, "right": counts.true_positives}
    return {"best": sweep.best, **totals, **lists}


def _confusion_content(matches: MatchSummary) -> dict[str, Any]:
    classes = [{"id": i, "name": name} for i, name in zip(matches.ids, matches.names)]
    return {
        "iou": IOU,
        "threshold": matches.threshold,
        "note": CONFUSION_NOTE,
        "classes": [*classes, {"id": None, "name": "background"}],
        **_cells(matches.matrix),
        **_left_out(matches),
    }


def _cells(matrix: np.ndarray | csr_array) -> dict[str, Any]:
    """The matrix row by row; of a sparse one the counts above 0, each as [row, column, count]."""
    if isinstance(matrix, np.ndarray):
        return {"matrix": matrix}
    filled = matrix.tocoo()
    return {"counts": np.stack([*filled.coords, filled.data], axis=1)}  # [n, 3]


def _write_results(detections: Detections, file: BinaryIO, *, masks: bool = False) -> None:
    """COCO's results format, one detection per line, with all digits, so that the file gives exactly the same AP.

    Boxes and masks are written to files of their own, because `COCO.loadRes` would take the size of a mask from a box
    beside it.
    """
    rows, key = detections.rows, "segmentation" if masks else "bbox"
    file.write(b"[")
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        ids = part[:, [0, 6]].astype(np.int64).tolist()
        regions = map(json.dumps, detections.masks[start : start + CHUNK]) if masks else part[:, 1:5].tolist()
        lines = [
            f'{{"image_id": {image}, "category_id": {category}, "{key}": {region}, "score": {score}}}'
            for (image, category), region, score in zip(ids, regions, part[:, 5].tolist())
        ]
        file.write(((",\n" if start else "\n") + ",\n".join(lines)).encode())
    file.write(b"\n]\n")
