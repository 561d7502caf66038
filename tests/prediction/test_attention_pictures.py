"""Pictures of attention: bright where the weights are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from prediction import attention_pictures
from prediction.attention_pictures import attention_sheet, heat_over
from prediction.result import Prediction

GREY = Image.new("RGB", (80, 40), (90, 90, 90))


def test_the_picture_is_bright_where_the_weights_are_high():
    weights = torch.zeros(2, 4)
    weights[1, 3] = 0.01
    light = np.asarray(heat_over(GREY, weights)).sum(axis=-1)  # [40, 80]
    row, column = np.unravel_index(light.argmax(), light.shape)
    assert row >= 25 and column >= 60
    assert light[5, 5] == np.asarray(heat_over(GREY, torch.zeros(2, 4))).sum(axis=-1)[5, 5] < light.max() / 2


def test_each_detection_and_point_gets_its_own_map(monkeypatch):
    shown = []
    monkeypatch.setattr(attention_pictures, "heat_over", lambda image, map: shown.append(map) or image)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [60.0, 20.0, 79.0, 39.0]])
    found = Prediction(GREY, boxes, torch.tensor([0.9, 0.8]), torch.tensor([1, 2]), ["a", "b"], torch.tensor([4, 2]))
    decoder, encoder = torch.rand(5, 2, 4), torch.rand(2, 4, 2, 4)
    attention_sheet(found, decoder, encoder, [(79, 39), (25, 5)])
    expected = [decoder[4], decoder[2], encoder[1, 3], encoder[0, 1]]
    assert len(shown) == 4 and all(torch.equal(a, b) for a, b in zip(shown, expected))
    shown.clear()
    attention_sheet(found, decoder, encoder)
    assert torch.equal(shown[2], encoder[0, 0]) and torch.equal(shown[3], encoder[1, 3])


def sheet_parts(monkeypatch, found: Prediction, points=()) -> tuple[list[tuple[str, Image.Image]], list, list]:
    """The panels of a sheet, the boxes drawn on each heat, and the marks."""
    panels, drawn, marks = [], [], []

    def keep(pairs):
        panels.extend(pairs)
        return pairs[0][1]

    monkeypatch.setattr(attention_pictures, "side_by_side", keep)
    monkeypatch.setattr(attention_pictures, "draw_boxes", lambda heat, boxes, **_: drawn.append(boxes.tolist()) or heat)
    monkeypatch.setattr(attention_pictures, "_mark", lambda picture, x, y: marks.append((x, y)))
    queries = int(found.queries.max()) + 1
    attention_sheet(found, torch.rand(queries, 2, 4), torch.rand(2, 4, 2, 4), points)
    return panels, drawn, marks


def found_at(*boxes: list[float]) -> Prediction:
    count = len(boxes)
    scores, labels = torch.linspace(0.9, 0.5, count), torch.ones(count, dtype=torch.int64)
    return Prediction(GREY, torch.tensor(boxes), scores, labels, ["a"] * count, torch.arange(count))


def test_boxes_and_points_are_scaled_with_the_picture(monkeypatch):
    """80 pixels become 448."""
    _, drawn, marks = sheet_parts(monkeypatch, found_at([10.0, 5.0, 30.0, 25.0]), [(40, 10)])
    assert drawn == [[[pytest.approx(v * 5.6) for v in (10, 5, 30, 25)]]]
    assert marks == [(pytest.approx(40 * 5.6), pytest.approx(10 * 5.6))]


def test_default_points_are_the_centres_of_the_best_boxes_kept_on_the_image(monkeypatch):
    found = found_at(
        [10.0, 5.0, 30.0, 25.0], [70.0, 30.0, 120.0, 60.0], [-60.0, -40.0, 20.0, 10.0], [0.0, 0.0, 2.0, 2.0]
    )
    panels, _, _ = sheet_parts(monkeypatch, found)
    assert [title for title, _ in panels if title.startswith("point")] == ["point 20, 15", "point 79, 39", "point 0, 0"]


def test_the_first_panel_shows_the_detections(monkeypatch):
    panels, _, _ = sheet_parts(monkeypatch, found_at([10.0, 5.0, 30.0, 25.0]))
    title, picture = panels[0]
    assert title == "found" and picture.size == (448, 224)
    assert len(np.unique(np.asarray(picture))) > 1, "boxes and names on plain grey"


def test_only_the_best_detections_get_a_panel(monkeypatch):
    boxes = [[0.0, 0.0, 10.0 + n, 10.0] for n in range(12)]
    panels, drawn, _ = sheet_parts(monkeypatch, found_at(*boxes))
    assert len(drawn) == 8 and len(panels) == 1 + 8 + 3


@pytest.mark.parametrize("point", [(80, 10), (-1, 10), (10, 40), (10, -1)])
def test_a_point_outside_the_image_is_rejected(point):
    with pytest.raises(ValueError, match=f"point {point[0]},{point[1]} is outside the image, which has 80x40 pixels"):
        attention_sheet(found_at([0.0, 0.0, 9.0, 9.0]), torch.rand(1, 2, 4), torch.rand(2, 4, 2, 4), [point])
