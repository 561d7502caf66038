"""Pictures of attention: bright where the weights are."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from util import attention_pictures
from util.attention_pictures import attention_sheet, heat_over
from util.prediction_result import Prediction

GREY = Image.new("RGB", (80, 40), (90, 90, 90))


def test_heat_is_where_the_weights_are():
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
