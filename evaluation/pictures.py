"""The pictures of an evaluation: curves, the confusion matrix, and detections next to the ground truth."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets.image_decoding import read_image
from evaluation.coco_eval import CocoEvaluator
from evaluation.findings import IOU, THRESHOLDS, MatchSummary
from util.files import write_atomically
from util.logging import get_logger
from util.pictures.boxes import color_of, contact_sheet, ground_truth_beside_prediction
from util.pictures.eval_plots import draw_confusion, draw_f1, draw_per_class, draw_precision_recall
from util.pictures.figure_parts import labels_of, png_of

EXAMPLES, EXAMPLE_SIDE = 6, 448  # images in detections.png; pixels of their longer side


def draw_evaluation(
    folder: Path,
    evaluator: CocoEvaluator,
    matches: MatchSummary,
    numbers: Mapping[str, float],
    image_folder: str | Path | None = None,
) -> None:
    """Write per_class.png, pr_curves.png, f1.png, confusion.png and, with `image_folder`, detections.png.

    A picture that cannot be drawn is left out with a warning.

    Raises:
        OSError: a picture cannot be written.
    """
    result = evaluator.coco_eval["bbox"]
    rows = {row["id"]: row for row in evaluator.per_class()}
    ap, ap50 = (_measured([rows[i][key] for i in matches.ids]) for key in ("AP", "AP50"))
    numbers = {name: np.nan if value == -1 else value for name, value in numbers.items()}
    ious = np.asarray(result.params.iouThrs)
    nearest = int(np.argmin(np.abs(ious - IOU)))
    precision = _precision_of(matches.ids, result.eval)  # [T, R, K]
    counts = matches.overall.counts
    overall = {"precision": counts.precision, "recall": counts.recall, "F1": counts.f1}
    f1 = np.array([sweep.counts.f1 for sweep in matches.classes]).reshape(len(matches.ids), len(THRESHOLDS))
    best = [sweep.best or {"threshold": np.nan, "f1": np.nan} for sweep in [*matches.classes, matches.overall]]
    best_points = np.array([(one["threshold"], one["f1"]) for one in best])  # [K + 1, 2]
    figures: dict[str, Callable[[list[str]], Any]] = {
        "per_class": lambda labels: draw_per_class(labels, ap, ap50, numbers, result.params.maxDets),
        "pr_curves": lambda labels: draw_precision_recall(labels, ious, precision, nearest),
        "f1": lambda labels: draw_f1(labels, THRESHOLDS, overall, f1, best_points, IOU),
        "confusion": lambda labels: draw_confusion(labels, matches.matrix, matches.threshold, IOU),
    }
    for name, draw in figures.items():
        _write(folder / f"{name}.png", lambda draw=draw: png_of(draw(labels_of(matches.names, matches.ids))))
    if image_folder is not None:
        _write(folder / "detections.png", lambda: _draw_examples(evaluator, matches, Path(image_folder)))


def _precision_of(category_ids: list[int], curves: Mapping[str, Any]) -> np.ndarray:
    """Precision [T, R, K] of any size, with most detections; NaN for a category without curves."""
    found = _measured(curves["precision"][:, :, :, 0, -1])
    place = {int(category_id): k for k, category_id in enumerate(curves["params"].catIds)}
    precision = np.full((*found.shape[:2], len(category_ids)), np.nan)
    shown = [k for k, category_id in enumerate(category_ids) if category_id in place]
    precision[:, :, shown] = found[:, :, [place[category_ids[k]] for k in shown]]
    return precision


def _write(path: Path, draw: Callable[[], bytes | None]) -> None:
    try:
        content = draw()
    except Exception as error:  # the numbers are written already; a picture must not end a run
        get_logger().warning(f"{path} is left out: it could not be drawn ({type(error).__name__}: {error})")
        return
    if content is not None:
        write_atomically(path, lambda file: file.write(content))


def _draw_examples(evaluator: CocoEvaluator, matches: MatchSummary, image_folder: Path) -> bytes | None:
    """Ground truth next to detections above the threshold, for the same evenly spaced images at every evaluation."""
    names = dict(zip(matches.ids, matches.names))
    colors = {name: color_of(category_id) for category_id, name in names.items()}
    rows = matches.detections.rows[matches.detections.rows[:, 5] >= matches.threshold]
    pictures = []
    for place in np.unique(np.linspace(0, len(evaluator.img_ids) - 1, EXAMPLES).round().astype(int)):
        image_id = evaluator.img_ids[place]
        image = _read(image_folder, evaluator.coco_gt.imgs[image_id])
        if image is None:
            continue
        scale = EXAMPLE_SIDE / max(image.size)
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR)
        here = (matches.objects.images == image_id) & ~matches.objects.crowd
        own = rows[(rows[:, 0] == image_id) & np.isin(rows[:, 6], matches.ids)]
        pictures.append(
            ground_truth_beside_prediction(
                image,
                _corners(matches.objects.boxes[here]) * scale,
                [matches.names[k] for k in matches.objects.classes[here]],
                _corners(own[:, 1:5]) * scale,
                [names[int(label)] for label in own[:, 6]],
                own[:, 5],
                colors=colors,
                min_side=0,
            )
        )
    if not pictures:
        return None
    content = io.BytesIO()
    contact_sheet(pictures, columns=2).save(content, format="PNG", compress_level=1)
    return content.getvalue()


def _read(folder: Path, entry: Mapping[str, Any]) -> Image.Image | None:
    """An image of the ground truth; None if it cannot be read (the data set reports that)."""
    size = (entry.get("width") or 0, entry.get("height") or 0)
    try:
        return read_image(folder / entry["file_name"], size if all(size) else None)
    except (KeyError, OSError):
        return None


def _corners(boxes: np.ndarray) -> np.ndarray:
    """Boxes [n, 4] from x, y, width, height to xyxy."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _measured(values: Any) -> np.ndarray:
    """The values with NaN in place of COCO's -1, which means "nothing to measure"."""
    values = np.array(values, dtype=np.float64)
    return np.where(values == -1, np.nan, values)
