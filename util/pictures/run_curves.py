"""Curves from a run's `log.txt` and from its saved evaluations.

Figures are created without pyplot: there is no global state, no window opens, and a notebook shows the figure that a
cell returns. To save one: `figure.savefig(path)`.
"""

import argparse
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from util.checkpoint import CheckpointError, load_checkpoint
from util.logging import get_logger
from util.pictures.fonts import with_fonts
from util.pictures.run_log import Log, PathLike, curves_of, read_log
from util.text import printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Field → (title, label of the y axis). For other fields the title is their name.
TITLES = {
    "loss": ("total loss", "weighted sum"),
    "loss_ce": ("classification loss", "weighted"),
    "loss_bbox": ("box L1 loss", "weighted"),
    "loss_giou": ("box GIoU loss", "weighted"),
    "loss_mask": ("mask focal loss", "weighted"),
    "loss_dice": ("mask Dice loss", "weighted"),
    "mask_AP": ("AP of masks (IoU 0.50 to 0.95)", "AP"),
    "PQ": ("panoptic quality", "PQ"),
    "class_error": ("class error of matched queries", "percent"),
    "AP": ("AP (IoU 0.50 to 0.95)", "AP"),
    "mAP": ("AP50 (IoU 0.50)", "AP50"),
    "lr": ("learning rate", "lr"),
}


def plot_logs(
    logs: PathLike | Sequence[PathLike],
    fields: Sequence[str] = ("class_error", "loss_bbox_unscaled", "mAP"),
    ewm_col: float = 0,
    log_name: str = "log.txt",
    *,
    columns: int | None = None,
) -> "Figure":
    """Plot fields of the log over the epochs, a panel per field: training solid, evaluation dashed, a colour per run.

    A field that holds several numbers, such as `coco_eval_bbox`, is drawn as a curve of each. What is no number is left
    out with a warning that names it.

    Args:
        logs: the folder of a run, or several folders.
        fields: names in the log without `train_` or `test_`; `AP` and `mAP` are COCO's AP and AP50 of boxes, `mask_AP`
            is its AP of masks, `PQ` the panoptic quality of all classes.
        ewm_col: centre of mass of the exponential smoothing; 0: no smoothing.
        log_name: the file in each folder, with one JSON object per line.
        columns: panels per row; by default all.

    Raises:
        ValueError: a log is missing or has no readable line.
    """
    folders = [Path(logs)] if isinstance(logs, str | os.PathLike) else [Path(folder) for folder in logs]
    files = [folder / log_name for folder in folders]
    runs = [read_log(file) for file in files]
    return draw_runs(runs, files, _run_names(folders), fields, ewm_col, columns=columns)


def draw_runs(
    runs: Sequence[Log],
    files: Sequence[Path],
    names: Sequence[str],
    fields: Sequence[str],
    ewm_col: float = 0,
    *,
    columns: int | None = None,
) -> "Figure":
    """`plot_logs` for logs that are read already, each from its file and with a name for the legend."""
    from matplotlib.ticker import MaxNLocator

    columns = columns or len(fields)
    figure, axes = _new_figure(math.ceil(len(fields) / columns), columns)
    colors = _colors(len(runs))
    for axis, field in zip(axes, fields, strict=False):
        for file, run, color in zip(files, runs, colors, strict=True):
            _draw_run(axis, run, field, ewm_col, color, file)
        title, y_label = TITLES.get(field, (printable(field, 60), "value"))
        _finish(axis, title, "epoch", y_label)
        axis.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    for axis in axes[len(fields) :]:
        axis.set_axis_off()
    _add_legend(figure, names, colors)
    return with_fonts(figure)


def smooth(values: Sequence[float], center_of_mass: float) -> np.ndarray:
    """Exponentially weighted mean of all values up to each one, with weights (1 − α)^age and α = 1 / (1 + c)."""
    decay = 1 - 1 / (1 + center_of_mass)
    total = weight = 0.0
    means = []
    for value in values:
        total, weight = total * decay + value, weight * decay + 1
        means.append(total / weight)
    return np.array(means)


def _draw_run(axis: "Axes", run: Log, field: str, ewm_col: float, color: Any, path: Path) -> None:
    for split, style, fill in ("train", "-", color), ("test", "--", "white"):
        curves = curves_of(run, split, field, path)
        for name, (epochs, values) in curves.items():
            marker = "o" if len(values) == 1 else None  # a single point is not visible as a line
            smoothed = smooth(values, ewm_col)
            axis.plot(epochs, smoothed, linestyle=style, color=color, marker=marker, markerfacecolor=fill)
            if name:
                axis.text(epochs[-1], smoothed[-1], f" {name}", fontsize=6.5, color=color, va="center")


def plot_precision_recall(files: Sequence[PathLike], naming_scheme: str = "iter") -> tuple["Figure", np.ndarray]:
    """Plot precision and score over recall, at IoU 0.50 for all areas, from saved evaluations (`eval/latest.pth`).

    Classes without ground truth do not count in the means. Files of the published code, which contain NumPy arrays and
    evaluation settings, are loaded as safely as ours.

    Args:
        files: saved evaluations, with precision and scores [T, R, K, A, M] and recall [T, K, A, M].
        naming_scheme: name curves by the file (`iter`) or by the run's folder two levels above it (`exp_id`).

    Returns:
        The figure and its two axes.

    Raises:
        ValueError: unknown naming scheme.
        CheckpointError: a file cannot be read, or is no saved evaluation.
    """
    files = [Path(file) for file in files]
    if naming_scheme == "exp_id":
        names = [Path("/", *file.absolute().parts[-3:]).parts[1] for file in files]
    elif naming_scheme == "iter":
        names = [file.stem for file in files]
    else:
        raise ValueError(f"naming_scheme must be 'iter' or 'exp_id', got {naming_scheme!r}")
    if len(set(names)) < len(names):
        names = [str(file) for file in files]

    figure, axes = _new_figure(1, 2)
    colors = _colors(len(files))
    for file, name, color in zip(files, names, colors, strict=True):
        precision, scores, recall = _saved_curves(file)
        measured = precision[0, 0, :, 0, -1] > -1  # [K]
        if not measured.any():
            get_logger().warning(f"{file} has no class with ground truth: there is nothing to draw")
            continue
        at_iou50 = precision[0, :, measured, 0, -1].mean(0)  # [R]
        recalls = np.linspace(0, 1, precision.shape[1])
        axes[0].plot(recalls, at_iou50, color=color)
        axes[1].plot(recalls, scores[0, :, measured, 0, -1].mean(0), color=color)

        reached, ap = recall[0, measured, 0, -1].mean(), precision[:, :, measured, 0, -1].mean()
        get_logger().info(f"{name}: AP {ap:.3f}, AP50 {at_iou50.mean():.3f}, recall at IoU 0.50 {reached:.3f}")
    _finish(axes[0], "precision / recall at IoU 0.50", "recall", "precision")
    _finish(axes[1], "score / recall at IoU 0.50", "recall", "score")
    for axis in axes:
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _add_legend(figure, names, colors, splits=False)
    return with_fonts(figure), axes


def _saved_curves(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and scores [T, R, K, A, M] and recall [T, K, A, M] of a saved evaluation."""
    saved = load_checkpoint(file, also_allowed=_evaluation_classes())
    try:
        precision, scores, recall = (np.asarray(saved[name]) for name in ("precision", "scores", "recall"))
        fits = precision.ndim == 5 and scores.shape == precision.shape
        fits = fits and recall.shape == precision.shape[:1] + precision.shape[2:] and min(precision.shape[:2]) >= 1
        fits = (
            fits and min(precision.shape[3:]) >= 1 and all(a.dtype.kind in "fiu" for a in (precision, scores, recall))
        )
    except (KeyError, TypeError, ValueError, RuntimeError):
        fits = False
    if not fits:
        raise CheckpointError(f"{file} is no saved evaluation: pass eval/latest.pth or eval.pth of an --output_dir")
    return precision, scores, recall


def _evaluation_classes() -> list[tuple[Any, str]]:
    """The classes in an evaluation file of the published code: numeric arrays and a settings object."""
    rebuild = np.empty(0).__reduce__()[0]
    scalar = np.float64().__reduce__()[0]
    classes = [(np.ndarray, "numpy.ndarray"), (np.dtype, "numpy.dtype")]
    for core in "numpy.core.multiarray", "numpy._core.multiarray":  # before and since NumPy 2
        classes += [(rebuild, f"{core}._reconstruct"), (scalar, f"{core}.scalar")]
    kinds = {type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")}
    classes += [(kind, f"{kind.__module__}.{kind.__name__}") for kind in kinds]
    return [*classes, (argparse.Namespace, "pycocotools.cocoeval.Params")]


def _new_figure(rows: int, columns: int) -> tuple["Figure", np.ndarray]:
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, format="png")
            return content.getvalue()

    width = 16 / 3 if rows == 1 else 4.4
    height = 4.6 if rows == 1 else 3.4
    figure = NotebookFigure(figsize=(width * columns, height * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def _finish(axis: "Axes", title: str, x_label: str, y_label: str) -> None:
    axis.set(title=title, xlabel=x_label, ylabel=y_label)
    axis.ticklabel_format(axis="y", scilimits=(-3, 4))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if not any(len(line.get_xdata()) for line in axis.lines):
        axis.text(0.5, 0.5, "not in the logs", transform=axis.transAxes, ha="center", va="center", color="gray")


def _colors(count: int) -> list[Any]:
    from matplotlib import colormaps

    return (
        list(colormaps["tab10"].colors[:count]) if count <= 10 else list(colormaps["turbo"](np.linspace(0, 1, count)))
    )


def _run_names(folders: Sequence[Path]) -> list[str]:
    names = [folder.absolute().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _add_legend(figure: "Figure", names: Sequence[str], colors: Sequence[Any], splits: bool = True) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color, linewidth=3, label="run") for color in colors]
    if splits:
        handles.append(Line2D([], [], color="gray", linestyle="-", label="training"))
        handles.append(Line2D([], [], color="gray", linestyle="--", label="evaluation"))
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    for text, name in zip(legend.get_texts(), names):  # as labels, names with a leading underscore would be left out
        text.set_text(shorten(printable(name, 1000), 60))
