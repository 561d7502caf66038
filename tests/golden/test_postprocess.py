"""Boxes, scores, labels, masks and panoptic maps of the post-processors."""

import io
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from models.panoptic import PostProcessPanoptic
from models.postprocess import PostProcess, PostProcessSegm
from tests.helpers.golden_rules import ARRAYS, FACTS, FORWARD, assert_close, assert_same, boxes, covers, tensor

ORIGINAL = [(120, 160), (90, 75)]  # (h, w) of the images
PROCESSED = [(96, 128), (112, 93)]  # as the model gets them


def predictions() -> dict[str, Tensor]:
    return {
        "pred_logits": tensor("pp", 2, 12, 21) * 3,
        "pred_boxes": torch.stack([boxes("pp:a", 12), boxes("pp:b", 12)]),
        "pred_masks": F.interpolate(tensor("pp:m", 2, 12, 7, 9) * 4, (28, 36), mode="bilinear", align_corners=False),
    }


@covers("post/bbox/*")
def test_postprocess(key):
    _, _, image, field = key.split("/")
    results = PostProcess()(predictions(), torch.tensor(ORIGINAL))
    assert len(results) == 2 and set(results[0]) == {"scores", "labels", "boxes"}
    ours = results[int(image)][field]
    if field == "labels":
        assert_same(ours, ARRAYS[key], key)
    else:
        assert_close(ours, ARRAYS[key], FORWARD, key)


@covers("post/segm/*")
def test_masks(key):
    image = int(key.split("/")[2])
    sizes = torch.tensor(ORIGINAL)
    results = PostProcessSegm()(PostProcess()(predictions(), sizes), predictions(), sizes, torch.tensor(PROCESSED))
    masks = results[image]["masks"]
    assert masks.shape == (12, 1, *ORIGINAL[image])
    assert_same(masks.numpy(), np.unpackbits(ARRAYS[key], count=masks.numel()).reshape(masks.shape), key)


def panoptic(image: int) -> dict[str, Any]:
    outputs = {name: value[image : image + 1] for name, value in predictions().items()}
    postprocess = PostProcessPanoptic({i: i <= 12 for i in range(20)}, threshold=0.3)
    return postprocess(outputs, torch.tensor([[112, 144]]), torch.tensor(ORIGINAL[image : image + 1]))[0]


@covers("post/panoptic/*")
def test_panoptic_map(key):
    ours = panoptic(int(key.split("/")[2]))
    colours = np.asarray(Image.open(io.BytesIO(ours["png_string"]))).astype(np.int32)
    assert_same(colours @ np.array([1, 256, 65536], dtype=np.int32), ARRAYS[key], key)


@covers("panoptic_segments/*")
def test_panoptic_segments(key):
    section, image = key.split("/")
    assert panoptic(int(image))["segments_info"] == FACTS[section][image]
