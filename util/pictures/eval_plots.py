"""Plots of an evaluation: AP by class, precision and recall, F1 over score thresholds, the confusion matrix.

Each function draws one figure from plain numbers, in which NaN means "nothing to measure". Legend: K classes, S score
thresholds, T IoU thresholds, R recalls from 0 to 1. Labels come from `figure_parts.labels_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from util.pictures.figure_parts import add_axes, add_legend, finish, finish_square, new_figure, two_squares, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from scipy.sparse import csr_array

BARS_PER_COLUMN, MAX_BARS = 40, 120
MAX_CELLS = 100  # classes in a confusion matrix
CELLS = ((8, 0.72, 9), (16, 0.46, 7.5), (31, 0.34, 6))  # up to N cells in a row: cell size in inches, font size
SMALL_CELL = (0.15, 6)  # the same in a larger matrix, whose cells contain no numbers
BLUE, LIGHT, GREEN, GREY = "#3b6ea8", "#c3d4e8", "#7a9a5a", "#d9d9d9"
PALETTE = "#1f77b4 #ff7f0e #2ca02c #d62728 #9467bd #8c564b #e377c2 #17becf #b5a81c #0b3c5d #f4a6a0 #66c2a5".split()


def draw_per_class(
    labels: Sequence[str],
    ap: np.ndarray,
    ap50: np.ndarray,
    numbers: Mapping[str, float],
    limits: Sequence[int] = (1, 10, 100),
) -> Figure:
    """The numbers of the summary, and below them AP and AP50 [K] of each class, the best class first.

    `limits` are the evaluation's on detections per image and class.

    If there are more than `MAX_BARS` classes, the best and the worst are shown.
    """
    order = np.lexsort((-np.nan_to_num(ap50, nan=-1), -np.nan_to_num(ap, nan=-1)))
    which = "each class"
    if len(order) > MAX_BARS:
        order = order[~np.isnan(ap[order])]
    if len(order) > MAX_BARS:
        half = MAX_BARS // 2
        which = f"the {half} best and the {half} worst of {len(order)} classes"
        order = np.concatenate([order[:half], order[-half:]])
    columns = max(1, -(-len(order) // BARS_PER_COLUMN))
    rows = max(1, -(-len(order) // columns))
    left = 0.25 + width_of([labels[k] for k in order])
    width, bars = max(8.6, columns * (left + 3.6)), 0.21 * rows + 0.1
    height = bars + 3.65
    figure = new_figure(width, height)
    _draw_numbers(add_axes(figure, 0.6, bars + 1.35, width - 0.85, 1.95), numbers, limits)
    figure.text(0.5, (bars + 0.55) / height, f"AP (dark) and AP50 (light) of {which}", ha="center")
    for column in range(columns):
        part = order[column * rows : (column + 1) * rows]
        axis = add_axes(figure, column * width / columns + left, 0.4, width / columns - left - 0.2, bars)
        _draw_bars(axis, [labels[k] for k in part], ap[part], ap50[part], rows)
    return figure


def _draw_numbers(axis: Axes, numbers: Mapping[str, float], limits: Sequence[int]) -> None:
    values = np.array(list(numbers.values()))
    colors = [GREEN if name.startswith("AR") else BLUE for name in numbers]
    axis.bar(range(len(values)), np.nan_to_num(values), color=colors, width=0.72)
    for place, value in enumerate(values):
        text = "none" if np.isnan(value) else f"{value:.3f}"
        axis.text(place, np.nan_to_num(value) + 0.02, text, ha="center", va="bottom", fontsize=8.5)
    axis.set_xticks(range(len(values)), list(numbers))
    axis.set(xlim=(-0.6, len(values) - 0.4), ylim=(0, 1.1), yticks=np.linspace(0, 1, 6))
    at = ", ".join(map(str, limits))
    meaning = f"AP at IoU 0.50:0.95, 0.50, 0.75; recall at {at} per image; small, medium, large objects"
    finish(axis, meaning, grid="y")


def _draw_bars(axis: Axes, labels: list[str], ap: np.ndarray, ap50: np.ndarray, rows: int) -> None:
    axis.barh(range(len(labels)), np.nan_to_num(ap50), color=LIGHT, height=0.74)
    axis.barh(range(len(labels)), np.nan_to_num(ap), color=BLUE, height=0.74)
    for place, (whole, at_50) in enumerate(zip(ap, ap50)):
        text = "no ground truth" if np.isnan(whole) else f"{whole:.3f} / {at_50:.3f}"
        axis.text(np.nan_to_num(at_50) + 0.012, place, text, va="center", fontsize=7.5)
    axis.set_yticks(range(len(labels)), labels, fontsize=8, parse_math=False)
    axis.set(xlim=(0, 1.3), ylim=(rows - 0.4, -0.6), xticks=np.linspace(0, 1, 6))
    finish(axis, grid="x")


def draw_precision_recall(labels: Sequence[str], ious: Sequence[float], precision: np.ndarray, at: int) -> Figure:
    """Precision [T, R, K] over recall: the mean over classes at each IoU, and each class at the IoU `ious[at]`."""
    from matplotlib import colormaps

    measured = ~np.isnan(precision).any(axis=(0, 1))  # [K]
    recall = np.linspace(0, 1, precision.shape[1])
    means = precision[:, :, measured].sum(axis=2) / max(measured.sum(), 1)  # [T, R]
    ap = precision[at].mean(axis=0)  # [K]
    mean_texts = [f"IoU {iou:.2f}   AP {mean.mean():.3f}" for iou, mean in zip(ious, means)]
    texts = [f"{label}   {value:.3f}" for label, value in zip(labels, ap)]
    figure, first, second = two_squares(mean_texts, texts)
    remark = "" if measured.any() else "no ground truth"
    if measured.any():
        colors = colormaps["viridis"](np.linspace(0, 0.9, len(means)))
        for mean, color in zip(means, colors):
            first.plot(recall, mean, color=color)
        add_legend(first, colors, mean_texts)
        mean_text = f"mean   {means[at].mean():.3f}"
        _draw_classes(second, recall, precision[at].T, ap, texts, means[at], mean_text)
    finish_square(first, "mean over classes", "recall", "precision", remark)
    finish_square(second, f"each class at IoU {ious[at]:.2f}, with its AP", "recall", "precision", remark)
    return figure


def draw_f1(
    labels: Sequence[str],
    thresholds: np.ndarray,
    overall: Mapping[str, np.ndarray],
    f1: np.ndarray,
    best: np.ndarray,
    iou: float,
) -> Figure:
    """Precision, recall and F1 of all detections over the score threshold, and F1 of each class.

    Args:
        labels: [K].
        thresholds: [S].
        overall: curves [S] named precision, recall and F1.
        f1: [K, S].
        best: [K + 1, 2]: best threshold and its F1 for each class, and last for all; NaN if no detection is correct.
        iou: IoU from which a detection is correct.
    """
    texts = [f"{label}   {_at(class_best)}" for label, class_best in zip(labels, best)]
    any_correct = not np.isnan(best[-1]).any()
    names = ["precision", "recall", f"F1   best {_at(best[-1])}" if any_correct else "F1"]
    figure, first, second = two_squares(names, texts)
    colors = {"precision": "tab:orange", "recall": "tab:green", "F1": "black"}
    for name, curve in overall.items():
        first.plot(thresholds, curve, color=colors[name], linewidth=2 if name == "F1" else 1.4)
    measured = ~np.isnan(f1).all(axis=1)  # [K]
    if any_correct:
        first.axvline(best[-1, 0], color="gray", linestyle=":", linewidth=1.2)
        first.plot(*best[-1], marker="o", color="black", markersize=5)
    add_legend(first, list(colors.values()), names)
    if measured.any():
        quality = np.where(measured, np.nan_to_num(best[:-1, 1]), np.nan)
        _draw_classes(second, thresholds, f1, quality, texts, overall["F1"], f"all   {_at(best[-1])}")
    remark = "" if any_correct else "no correct detection" if measured.any() else "no ground truth"
    finish_square(first, f"all detections, correct from IoU {iou:.2f}", "score threshold", "", remark)
    finish_square(second, "each class, with its best F1 and threshold", "score threshold", "F1", remark)
    return figure


def _at(best: np.ndarray) -> str:
    threshold, f1 = best
    return "none" if np.isnan(threshold) else f"{f1:.3f} at {threshold:.3g}"


def _draw_classes(
    axis: Axes,
    x: np.ndarray,
    curves: np.ndarray,
    quality: np.ndarray,
    texts: Sequence[str],
    overall: np.ndarray,
    overall_text: str,
) -> None:
    """Curves [K, S] of the classes whose quality [K] is not NaN, best first, and on top the overall curve in black.

    If there are many classes, only the best and the worst have a colour and a text; the others are grey.
    """
    from matplotlib.collections import LineCollection

    order = np.argsort(-quality, kind="stable")[: np.count_nonzero(~np.isnan(quality))]
    half = len(PALETTE) // 2
    named = order if len(order) <= len(PALETTE) else np.concatenate([order[:half], order[-half:]])
    others = np.setdiff1d(order, named)
    axis.add_collection(LineCollection([np.stack([x, curves[k]], 1) for k in others], colors=GREY, linewidths=0.7))
    # If there are few classes, each has the same colour in every figure.
    colors = [PALETTE[k if len(curves) <= len(PALETTE) else place] for place, k in enumerate(named)]
    for k, color in zip(named, colors):
        axis.plot(x, curves[k], color=color, linewidth=1.2)
    axis.plot(x, overall, color="black", linewidth=2)
    shown = [texts[k] for k in named]
    if len(others):
        shown.insert(half, f"… {len(others)} more …")
        colors.insert(half, GREY)
    add_legend(axis, ["black", *colors], [overall_text, *shown])


def draw_confusion(labels: Sequence[str], matrix: np.ndarray | csr_array, threshold: float, iou: float) -> Figure:
    """The confusion matrix [K + 1, K + 1] of ground truth (rows) and prediction (columns), the background last.

    The colour of a cell is its share of the row. If there are more than `MAX_CELLS` classes, the most frequent ones
    are shown.
    """
    title = f"detections with score ≥ {threshold:.3g}, matched from IoU {iou:.2f}; colour: share of the row"
    chosen = np.arange(len(labels) + 1)
    if len(labels) > MAX_CELLS:
        totals = np.asarray(matrix.sum(axis=0)) + np.asarray(matrix.sum(axis=1))
        frequent = np.argsort(-totals[:-1], kind="stable")[:MAX_CELLS]
        chosen = np.append(np.sort(frequent), len(labels))
        title += f"\nthe {MAX_CELLS} most frequent of {len(labels)} classes"
    labels = [[*labels, "background"][k] for k in chosen]
    rows = np.maximum(np.asarray(matrix.sum(axis=1)), 1)[chosen]
    matrix = matrix[np.ix_(chosen, chosen)]
    matrix = matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
    share = matrix / rows[:, None]
    count = len(chosen)
    cell, font = next(((size, points) for most, size, points in CELLS if count <= most), SMALL_CELL)
    margin, side = width_of(labels, font) + 0.55, cell * count
    width, height = max(margin + side + 1.1, 6.2), margin + side + 0.6
    figure = new_figure(width, height)
    figure.text(0.5, 1 - 0.12 / height, title, ha="center", va="top", fontsize=9)
    axis = add_axes(figure, margin, margin, side, side)
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, cax=add_axes(figure, margin + side + 0.15, margin, 0.16, side))
    for row, column in zip(*np.nonzero(matrix)) if cell > SMALL_CELL[0] else ():
        color = "white" if share[row, column] > 0.55 else "black"
        text = _abbreviated(int(matrix[row, column]))
        axis.text(column, row, text, ha="center", va="center", fontsize=font - 1, color=color)
    axis.axhline(count - 1.5, color="gray", linewidth=0.8)
    axis.axvline(count - 1.5, color="gray", linewidth=0.8)
    axis.set_xticks(range(count), labels, fontsize=font, rotation=90, parse_math=False)
    axis.set_yticks(range(count), labels, fontsize=font, parse_math=False)
    axis.set(xlabel="prediction", ylabel="truth")
    return figure


def _abbreviated(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1e3:.0f}k" if count < 1_000_000 else f"{count / 1e6:.0f}M"
