"""What an evaluation leaves behind: numbers, curves, detections and pictures in `eval/`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from evaluation.coco_eval import CocoEvaluator
from evaluation.detections import Detections
from evaluation.findings import IOU, THRESHOLDS, Findings, Outcome, find
from evaluation.pictures import draw_evaluation
from util.checkpoint import save_checkpoint
from util.coco_names import COCO_METRICS
from util.dist import is_main_process
from util.files import write_atomically, write_json
from util.logging import get_logger

AT_ONCE = 10_000  # detections whose text is made together
F1_NOTE = (
    "counted at IoU 0.5 as COCO counts, detections with score >= threshold; overall: all classes' detections together; "
    "null: nothing to measure; best: the threshold of the highest F1"
)
CONFUSION_NOTE = (
    "rows: truth, columns: prediction, the last of each: background (false alarms, missed objects); detections with "
    "score >= threshold, the best F1's, each take the free object they overlap most, whatever its class, from IoU 0.5, "
    "best score first; crowd regions, and detections in them that match nothing else, are left out"
)


def write_evaluation(
    folder: str | Path,
    evaluator: CocoEvaluator,
    *,
    epoch: int | None,
    batch_size: int,
    training: bool = True,
    image_folder: str | Path | None = None,
) -> dict[str, float | None]:
    """Write what is known after `evaluator.summarize()`; the main process does, the others return at once.

    In `folder`:
        eval/latest.pth: precision, recall and score arrays as published, also kept as eval/050.pth every 50 epochs;
            out of training eval.pth instead.
        eval/per_class.json: the 12 numbers, by name too, and AP, AP50 and AR of each class, -1 without ground truth.
        eval/f1.json: precision, recall and F1 over score thresholds at IoU 0.5, overall and by class, and the best.
        eval/confusion.json: which class is taken for which at the best threshold.
        eval/detections.json: all detections of known categories, a results file for `COCO.loadRes`.
        eval/*.png: per_class, pr_curves, f1, confusion, and with `image_folder` detections: a few of the images.

    Every file is replaced in one step. A picture that cannot be drawn is left out with a warning.

    Args:
        folder: of the run.
        evaluator: has evaluated boxes.
        epoch: the last finished one, None if unknown.
        batch_size: images on each process, which DETR's AP depends on by the padding.
        training: False for a lone evaluation.
        image_folder: where the images' `file_name`s are.

    Returns:
        `threshold`, `f1`, `precision` and `recall` at the best F1 overall, all None if no detection is right: the
        threshold is the one to pass on when predicting. Empty on other processes.

    Raises:
        ValueError: `evaluator` has not evaluated boxes.
        OSError: a file cannot be written.
    """
    if not is_main_process():
        return {}
    per_class = evaluator.per_class()
    folder, result = Path(folder), evaluator.coco_eval["bbox"]
    about, numbers = {"epoch": epoch, "batch_size": batch_size}, dict(zip(COCO_METRICS, result.stats.tolist()))
    arrays = {name: result.eval[name] for name in ("precision", "recall", "scores")}
    for file in _curve_files(epoch, training):
        save_checkpoint(folder / file, {**arrays, "counts": list(result.eval["counts"])})
    folder = folder / "eval"
    summary = {"stats": result.stats.tolist(), "numbers": numbers, "per_class": per_class}
    write_json(folder / "per_class.json", about | summary)

    found = find(evaluator)
    write_atomically(folder / "detections.json", partial(_write_results, found.detections))
    write_json(folder / "f1.json", about | _f1_content(found))
    write_json(folder / "confusion.json", about | _confusion_content(found))
    draw_evaluation(folder, evaluator, found, numbers, image_folder)

    best = found.overall.best
    if best is None:
        get_logger().info(f"no detection is right at IoU {IOU}; numbers and pictures are in {folder}")
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


def _f1_content(found: Findings) -> dict[str, Any]:
    classes = zip(found.ids, found.names, found.classes)
    return {
        "iou": IOU,
        "note": F1_NOTE,
        "thresholds": THRESHOLDS,
        "overall": _curves(found.overall),
        "per_class": [{"id": i, "name": name, **_curves(outcome)} for i, name, outcome in classes],
    }


def _curves(outcome: Outcome) -> dict[str, Any]:
    counts = outcome.counts
    arrays = {"f1": counts.f1, "precision": counts.precision, "recall": counts.recall}
    lists = {name: [None if np.isnan(x) else x for x in array.tolist()] for name, array in arrays.items()}
    return {"best": outcome.best, "objects": counts.objects, "detections": counts.kept, "right": counts.right, **lists}


def _confusion_content(found: Findings) -> dict[str, Any]:
    classes = [{"id": i, "name": name} for i, name in zip(found.ids, found.names)]
    return {
        "iou": IOU,
        "threshold": found.threshold,
        "note": CONFUSION_NOTE,
        "classes": [*classes, {"id": None, "name": "background"}],
        "matrix": found.matrix,
    }


def _write_results(detections: Detections, file: BinaryIO) -> None:
    """COCO's results format, a detection a line; numbers in full, so that the file gives the same AP to the bit."""
    rows = detections.rows
    file.write(b"[")
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        whole = part[:, [0, 6]].astype(np.int64).tolist()
        lines = [
            f'{{"image_id": {image}, "category_id": {category}, "bbox": {box}, "score": {score}}}'
            for (image, category), box, score in zip(whole, part[:, 1:5].tolist(), part[:, 5].tolist())
        ]
        file.write(((",\n" if start else "\n") + ",\n".join(lines)).encode())
    file.write(b"\n]\n")
