"""Predicted maps are the evaluator's own and may be of any size; Pillow's limit of pixels does not hold for them."""

import warnings

import numpy as np
from PIL import Image

from evaluation.panoptic_predictions import check_prediction
from tests.helpers.panoptic_samples import prediction_of


def test_maps_above_pillows_limit_are_taken_without_a_warning(monkeypatch):
    prediction = prediction_of(3, np.zeros((30, 40), dtype=np.int32), {})
    images = {3: {"id": 3, "file_name": "3.png", "width": 40, "height": 30}}
    for limit in (1000, 500):  # where Pillow would warn, and where it would refuse
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert check_prediction(prediction, images)["image_id"] == 3
