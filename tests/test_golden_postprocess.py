"""Boxes, scores and labels of the post-processor."""

import torch
from golden_rules import ARRAYS, FORWARD, assert_close, assert_same, boxes, covers, tensor

from models.postprocess import PostProcess


@covers("post/bbox/*")
def test_postprocess(key):
    _, _, image, field = key.split("/")
    outputs = {
        "pred_logits": tensor("pp", 2, 12, 21) * 3,
        "pred_boxes": torch.stack([boxes("pp:a", 12), boxes("pp:b", 12)]),
    }
    results = PostProcess()(outputs, torch.tensor([[120, 160], [90, 75]]))
    assert len(results) == 2 and set(results[0]) == {"scores", "labels", "boxes"}
    ours = results[int(image)][field]
    if field == "labels":
        assert_same(ours, ARRAYS[key], key)
    else:
        assert_close(ours, ARRAYS[key], FORWARD, key)
