"""Evaluation plots show the given numbers, and no text is cut off."""

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from util.coco_names import COCO_METRICS
from util.pictures.eval_plots import BLUE, GREY, draw_confusion, draw_f1, draw_per_class, draw_precision_recall

NUMBERS = {name: 0.05 * place for place, name in enumerate(COCO_METRICS)}
X = np.linspace(0, 1, 101)


def labels(count: int) -> list[str]:
    return [f"{'W' * 20} {k}" if k % 7 == 3 else f"class {k}" for k in range(count)]


def made_per_class(count: int, missing: int = 0):
    ap = np.linspace(0.9, 0.1, count)
    ap[count - missing :] = np.nan
    return draw_per_class(labels(count), ap, np.minimum(1, ap * 1.5), NUMBERS)


def made_precision_recall(count: int, missing: int = 0):
    precision = np.linspace(0.2, 0.9, count)[None, None] * (1 - X[None, :, None]) * np.linspace(1, 0, 10)[:, None, None]
    precision[:, :, count - missing :] = np.nan
    return draw_precision_recall(labels(count), np.linspace(0.5, 0.95, 10), precision, 0)


def made_f1(count: int, missing: int = 0):
    f1 = np.linspace(0.2, 0.9, count)[:, None] * (1 - X)
    best = np.array([(0.1, curve[10]) for curve in f1] + [(0.4321, 0.55)])
    f1[count - missing :], best[count - missing : count] = np.nan, np.nan
    if missing == count:
        best[-1] = np.nan
    overall = {"precision": X, "recall": 1 - X, "F1": np.full(101, np.nan) if missing == count else X * (1 - X)}
    return draw_f1(labels(count), X, overall, f1, best, 0.5)


def made_confusion(count: int, missing: int = 0):
    matrix = np.random.default_rng(0).integers(0, 3, (count + 1, count + 1))
    matrix[-1, -1] = 0
    matrix[: count + 1 : 2, 0] = 12345
    return draw_confusion(labels(count), matrix, 0.4321, 0.5)


def texts_of(figure) -> list[str]:
    return [text.get_text() for part in (figure, *figure.axes) for text in part.texts]


def shown_texts(axis) -> Iterator[Text]:
    """All text in, at and above the axes; ticks outside their limits are not drawn."""
    yield from (axis.title, axis.xaxis.label, axis.yaxis.label, *axis.texts)
    for one, limits in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
        ticks = zip(one.get_ticklocs(), one.get_ticklabels(), strict=True)
        yield from (label for place, label in ticks if min(limits) <= place <= max(limits))


@pytest.mark.parametrize("count", [0, 3, 25, 130])
@pytest.mark.parametrize("draw", [made_per_class, made_precision_recall, made_f1, made_confusion])
def test_no_text_is_cut_off_and_no_names_overlap(draw, count):
    figure = draw(count)
    FigureCanvasAgg(figure).draw()
    assert max(figure.get_size_inches()) < 22
    texts = [text for axis in figure.axes for text in shown_texts(axis)] + figure.texts
    for text in texts:
        box = text.get_window_extent()
        inside = figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert not text.get_text() or (inside and figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1), text
    for axis in figure.axes:
        names = sorted(label.get_window_extent().extents[[1, 3]].tolist() for label in axis.get_yticklabels())
        assert all(low[1] <= high[0] + 1 for low, high in zip(names, names[1:]))


@pytest.mark.parametrize("draw", [made_precision_recall, made_f1])
def test_without_ground_truth_the_curves_say_so(draw):
    figure = draw(4, missing=4)
    assert texts_of(figure).count("no ground truth") == 2
    assert not any("nan" in text for text in texts_of(figure))


def test_bars_go_from_the_best_class_to_those_without_ground_truth():
    figure = draw_per_class(["a", "b", "c"], np.array([0.2, np.nan, 0.6]), np.array([0.4, np.nan, 0.8]), NUMBERS)
    summary, bars = figure.axes
    assert [label.get_text() for label in bars.get_yticklabels()] == ["c", "a", "b"]
    dark = [
        bar.get_width()
        for bar in bars.patches
        if bar.get_facecolor()[:3] == tuple(int(BLUE[i : i + 2], 16) / 255 for i in (1, 3, 5))
    ]
    assert dark == [0.6, 0.2, 0]
    assert [text.get_text() for text in bars.texts] == ["0.600 / 0.800", "0.200 / 0.400", "no ground truth"]
    assert [bar.get_height() for bar in summary.patches] == list(NUMBERS.values())
    assert [label.get_text() for label in summary.get_xticklabels()] == list(NUMBERS)


def test_of_very_many_classes_the_best_and_the_worst_measured_have_bars():
    figure = made_per_class(200, missing=20)
    names = [label.get_text() for axis in figure.axes[1:] for label in axis.get_yticklabels()]
    assert names == [labels(200)[k] for k in [*range(60), *range(120, 180)]]
    assert "60 best and the 60 worst of 180 classes" in figure.texts[0].get_text()
    names = [label.get_text() for axis in made_per_class(200, missing=120).axes[1:] for label in axis.get_yticklabels()]
    assert names == labels(80)


def test_the_mean_curve_leaves_out_classes_without_ground_truth():
    figure = made_precision_recall(4, missing=2)
    mean, classes = figure.axes
    expected = np.linspace(0.2, 0.9, 4)[:2].mean() * (1 - X)
    np.testing.assert_allclose(mean.lines[0].get_ydata(), expected)
    assert mean.texts[0].get_text() == f"IoU 0.50   AP {expected.mean():.3f}"
    shown = [text.get_text() for text in classes.texts]
    assert shown[0] == f"mean   {expected.mean():.3f}" and shown[1].startswith("class 1 ") and len(shown) == 4


def test_few_classes_all_have_a_colour_and_of_many_the_best_and_the_worst():
    few, many = (made_f1(count).axes[1] for count in (12, 40))
    colors = [line.get_color() for line in few.lines if len(line.get_xdata()) == 101]
    assert len(set(colors)) == len(colors) == 13 and GREY not in colors
    shown = [text.get_text().split("   ")[0] for text in many.texts]
    best, worst = [labels(40)[k] for k in range(39, 33, -1)], [labels(40)[k] for k in range(5, -1, -1)]
    assert shown[:14] == ["all", *best, "… 28 more …", *worst]
    assert len(many.collections[0].get_segments()) == 28


def test_the_best_f1_is_marked_and_named():
    axis = made_f1(3).axes[0]
    point = [line for line in axis.lines if line.get_marker() == "o"]
    assert len(point) == 1 and point[0].get_xydata().tolist() == [[0.4321, 0.55]]
    assert "F1   best 0.550 at 0.432" in texts_of(axis.figure)


def test_cells_hold_their_counts_and_show_their_share_of_the_row():
    matrix = np.array([[8, 2, 0], [0, 123456, 0], [0, 1, 0]])
    axis = draw_confusion(["a", "b"], matrix, 0.4, 0.5).axes[0]
    cells = {text.get_position(): text.get_text() for text in axis.texts}
    assert cells == {(0, 0): "8", (1, 0): "2", (1, 1): "123k", (1, 2): "1"}
    np.testing.assert_allclose(axis.images[0].get_array(), [[0.8, 0.2, 0], [0, 1, 0], [0, 1, 0]])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "background"]
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("truth", "prediction")


def test_a_very_large_matrix_shows_the_most_frequent_classes():
    matrix = np.zeros((151, 151), dtype=int)
    matrix[np.arange(150), np.arange(150)] = np.arange(150)
    figure = draw_confusion([f"class {k}" for k in range(150)], matrix, 0.5, 0.5)
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == [f"class {k}" for k in range(50, 150)] + ["background"]
    assert "the 100 most frequent of 150 classes" in figure.texts[0].get_text()
    assert figure.axes[0].images[0].get_array().diagonal().tolist() == [1] * 100 + [0]
