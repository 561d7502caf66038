"""The matcher alone: few targets, none, and more targets than queries."""

import torch

from models.matcher import HungarianMatcher
from tests.helpers.golden_rules import ARRAYS, assert_same, boxes, covers, targets, tensor

COUNTS = [[3, 7], [0, 4], [0, 0], [14, 1]]


@covers("matcher/*")
def test_matcher(key):
    _, case, image, side = key.split("/")
    name = f"mt{case}"
    outputs = {
        "pred_logits": tensor(name, 2, 12, 10),
        "pred_boxes": torch.stack([boxes(f"{name}:a", 12), boxes(f"{name}:b", 12)]),
    }
    pairs = HungarianMatcher(1, 5, 2)(outputs, targets(name, COUNTS[int(case)], 9))
    src, tgt = pairs[int(image)]
    assert_same({"src": src, "tgt": tgt}[side], ARRAYS[key], key)
