"""A line across the picture: which ways count as crossings."""

import pytest

from prediction.tracking.line import Crossings, Line

ACROSS = Line((10, 50, 90, 50))  # from left to right: below is its right side


def ways(line: Line, *centres: tuple[float, float], side: float = 10) -> list[str | None]:
    crossings = Crossings(line)
    return [crossings.see(7, (x - side / 2, y - side / 2, x + side / 2, y + side / 2)) for x, y in centres]


def test_downwards_is_in_and_upwards_is_out():
    assert ways(ACROSS, (40, 40), (40, 60), (45, 41)) == [None, "in", "out"]


def test_a_line_the_other_way_round_swaps_them():
    assert ways(Line((90, 50, 10, 50)), (40, 40), (40, 60), (45, 41)) == [None, "out", "in"]


def test_the_way_must_lead_between_the_ends():
    assert ways(ACROSS, (5, 40), (5, 60)) == [None, None]
    assert ways(ACROSS, (0, 40), (30, 60)) == [None, "in"]  # starts beside the line and meets it at x = 15
    assert ways(ACROSS, (5, 40), (5, 60), (40, 60), (40, 40)) == [None, None, None, "out"]


def test_an_object_that_trembles_on_the_line_is_counted_once():
    assert ways(ACROSS, (40, 40), (40, 50.2), (40, 49.8), (40, 50.3), (40, 49.7), (40, 60)) == [*[None] * 5, "in"]


def test_an_object_that_turns_back_on_the_line_is_not_counted():
    assert ways(ACROSS, (40, 40), (40, 50.4), (40, 40)) == [None, None, None]


def test_objects_are_kept_apart():
    crossings = Crossings(ACROSS)
    for number, y in ((1, 40), (2, 60), (1, 60), (2, 40)):
        crossings.see(number, (35, y - 5, 45, y + 5))
    assert crossings.found == [(1, "in"), (2, "out")]


@pytest.mark.parametrize("ends", [(1, 2, 1, 2), (0, 0, float("nan"), 5), (0, 0, 5)])
def test_what_is_no_line_is_refused(ends):
    with pytest.raises(ValueError, match="two different ends"):
        Line(ends)
