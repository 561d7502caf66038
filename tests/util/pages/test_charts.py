"""Charts show every value they are given, and survive those that they cannot show."""

import math
import re

import numpy as np
import pytest

from tests.util.pages.test_page import HOSTILE, Elements
from util.pages.charts import MAX_POINTS, WIDTH, bars, histogram, lines
from util.pages.scales import Scale, scale_of, tick_text


def widths(chart: str) -> list[float]:
    return [float(found) for found in re.findall(r'<rect [^>]*width="([\d.]+)"', chart)]


def heights(chart: str) -> list[float]:
    return [float(found) for found in re.findall(r'<rect [^>]*height="([\d.]+)"', chart)]


def points(chart: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'points="([^"]+)"', chart)
    return [[tuple(map(float, pair.split(","))) for pair in run.split()] for run in found]


def test_bars_are_as_long_as_their_values():
    whole, half, none = widths(bars(["a", "b", "c"], {"AP": [1.0, 0.5, 0.0]}, high=1))
    assert half == pytest.approx(whole / 2, abs=0.1) and none == 0


def test_a_bar_without_a_value_is_a_dash():
    chart = bars(["a", "b"], {"AP": [None, math.nan]})
    assert widths(chart) == [0, 0] and chart.count(">–<") == 2


def test_several_series_have_a_legend():
    assert 'class="legend"' not in bars(["a"], {"train": [1]})
    assert 'class="legend"' in bars(["a"], {"train": [1], "val": [2]})


def test_a_histogram_counts_every_value():
    values = np.random.default_rng(0).normal(size=1000)
    counts = re.findall(r"to [^:]*: ([\d,]+)</title>", histogram({"x": values}, bins=10))
    assert len(counts) == 10 and sum(int(count.replace(",", "")) for count in counts) == 1000


def test_a_histogram_of_counts_has_a_bin_for_each():
    chart = histogram({"objects": [1, 1, 2, 4]}, whole=True)
    assert re.findall(r"<title>(\d+: \d+)</title>", chart) == ["1: 2", "2: 1", "3: 0", "4: 1"]


def test_a_histogram_of_two_series_compares_shares():
    small, large = heights(histogram({"val": [1], "train": [1] * 1000}))
    assert small == large


def test_a_mark_outside_the_values_is_shown():
    chart = histogram({"objects": [1, 2, 3]}, marks={"queries": 100}, whole=True)
    at = float(re.search(r'class="mark" x1="([\d.]+)"', chart)[1])
    assert 300 < at < WIDTH and "queries" in chart


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf]])
def test_no_values_are_said(values):
    assert "no values" in histogram({"x": values})
    assert "no values" in lines({"x": (range(len(values)), values)})


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[0.0], [3.0], [5.0, 5.0], [-1.0, 0.0, 1.0], [1e-12, 1e12]])
def test_any_values_can_be_shown(values, log):
    for chart in (histogram({"x": values}, log=log), lines({"x": (range(len(values)), values)}, log=log)):
        assert "nan" not in chart and "inf" not in chart
        assert Elements(chart).open == []


def test_a_value_that_is_not_finite_is_a_gap():
    runs = points(lines({"loss": (range(6), [1, 2, math.nan, 3, 2, 1])}))
    assert [len(run) for run in runs] == [2, 3]


def test_a_long_curve_is_thinned_and_keeps_its_spike():
    y = np.zeros(100_000)
    y[54_321] = 1
    (run,) = points(lines({"loss": (np.arange(100_000), y)}))
    assert len(run) <= MAX_POINTS + 2
    assert min(height for _, height in run) == 18  # the top of the plot
    assert [x for x, _ in run] == sorted(x for x, _ in run)


def test_names_in_charts_are_escaped():
    for chart in (
        bars([HOSTILE], {HOSTILE: [1], "b": [2]}, title=HOSTILE),
        lines({HOSTILE: ([0, 1], [0, 1])}, title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE),
        histogram({HOSTILE: [1, 2]}, title=HOSTILE, x_label=HOSTILE, marks={HOSTILE: 1}),
    ):
        elements = Elements(chart)
        assert "img" not in {tag for tag, _ in elements.found} and elements.open == []


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(0, 1), [0, 0.25, 0.5, 0.75, 1]),
        (Scale(0, 100), [0, 25, 50, 75, 100]),
        (Scale(-3, 7), [-2.5, 0, 2.5, 5]),
        (Scale(0.9, 110, log=True), [1, 3, 10, 30, 100]),
        (Scale(1e-8, 1, log=True), [1e-8, 1e-5, 1e-2]),
    ],
)
def test_ticks_are_round_and_inside(scale, ticks):
    assert scale.ticks(4) == pytest.approx(ticks)


def test_a_scale_of_one_value_has_room_around_it():
    assert scale_of(5, 5)(5) == 0.5 and scale_of(0, 0)(0) == 0.5 and scale_of(4, 4, log=True)(4) == 0.5


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.5, "0.5"), (1e-4, "1e-4"), (2000, "2,000"), (15000, "15k"), (2e6, "2M")]
)
def test_ticks_are_short(value, text):
    assert tick_text(value) == text
