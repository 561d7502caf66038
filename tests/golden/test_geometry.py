"""Boxes, padded batches, position encodings and frozen batch norm against the golden figures."""

import torch

from models.backbone import FrozenBatchNorm2d
from models.position_encoding import PositionEmbeddingLearned, PositionEmbeddingSine
from tests.helpers.golden_rules import (
    ARRAYS,
    FORWARD,
    assert_close,
    assert_same,
    boxes,
    covers,
    images,
    load_golden_weights,
    tensor,
)
from tests.helpers.golden_rules import targets as golden_targets
from util import box_ops
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list


def padded_batch() -> NestedTensor:
    return nested_tensor_from_tensor_list(images("nt", [(37, 61), (53, 40)]))


@covers("box/xyxy", "box/iou", "box/union", "box/giou")
def test_box_operations(key):
    x1, x2 = (box_ops.box_cxcywh_to_xyxy(b) for b in (boxes("b1", 7), boxes("b2", 5)))
    iou, union = box_ops.box_iou(x1, x2)
    results = {"xyxy": x1, "iou": iou, "union": union, "giou": box_ops.generalized_box_iou(x1, x2)}
    assert_close(results[key.removeprefix("box/")], ARRAYS[key], FORWARD, key)


@covers("box/masks_to_boxes")
def test_masks_to_boxes(key):
    masks = golden_targets("m2b", [6], 9, [(40, 56)])[0]["masks"]
    assert_same(box_ops.masks_to_boxes(masks), ARRAYS[key], key)


@covers("nested/tensors")
def test_nested_tensor_pads_the_images(key):
    batch, golden = padded_batch(), ARRAYS[key]
    assert_close(batch.tensors, golden, FORWARD, key)
    assert_same(batch.tensors == 0, golden == 0, f"padding of {key}")


@covers("nested/mask")
def test_nested_tensor_marks_the_padding(key):
    assert_same(padded_batch().mask, ARRAYS[key], key)


@covers("pos/sine_*")
def test_sine_encoding(key):
    encoding = {
        "pos/sine_plain": PositionEmbeddingSine(16),
        "pos/sine_norm": PositionEmbeddingSine(16, normalize=True),
        "pos/sine_scale": PositionEmbeddingSine(16, 20, True, 3.0),
    }[key]
    assert_close(encoding(padded_batch()), ARRAYS[key], FORWARD, key)


@covers("pos/learned")
def test_learned_encoding(key):
    encoding = load_golden_weights(PositionEmbeddingLearned(16))
    batch = NestedTensor(torch.zeros(2, 3, 9, 13), torch.zeros(2, 9, 13, dtype=torch.bool))
    assert_close(encoding(batch), ARRAYS[key], FORWARD, key)


@covers("fbn/out")
def test_frozen_batch_norm(key):
    norm = load_golden_weights(FrozenBatchNorm2d(8))
    assert_close(norm(tensor("fbn", 2, 8, 5, 6)), ARRAYS[key], FORWARD, key)
