"""Masks to a panoptic map: assignment of pixels, merging, dropping, sizes and padding."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from models.panoptic import PostProcessPanoptic

THINGS = {0: True, 1: True, 2: False, 3: False}
CONFIDENT = 9.0


def outputs(labels: list[int], masks: list[Tensor], classes: int = 4) -> dict[str, Tensor]:
    """One image whose queries have these labels with a high score (`classes`: no object) and these mask logits."""
    logits = torch.full((1, len(labels), classes + 1), 0.0)
    for query, label in enumerate(labels):
        logits[0, query, label] = CONFIDENT
    return {"pred_logits": logits, "pred_masks": torch.stack(masks)[None]}


def region(rows: slice, columns: slice, logit: float = 5.0, size: tuple[int, int] = (8, 12)) -> Tensor:
    mask = torch.full(size, -5.0)
    mask[rows, columns] = logit
    return mask


def paint(given: dict[str, Tensor], size=(8, 12), target=None, **options) -> tuple[np.ndarray, list[dict]]:
    (result,) = PostProcessPanoptic(THINGS)(given, [size], None if target is None else [target], **options)
    return ids_of(result["png_string"]), result["segments_info"]


def ids_of(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "RGB"
        return np.asarray(image).astype(np.int64) @ np.array([1, 256, 65536])


EVERY, LEFT, RIGHT = slice(None), slice(0, 6), slice(6, 12)


def test_each_pixel_goes_to_the_mask_with_the_highest_logit_and_areas_are_counted():
    ids, segments = paint(outputs([0, 1], [region(EVERY, slice(0, 7)), region(EVERY, RIGHT, logit=6.0)]))
    assert (ids[:, :6] == 0).all() and (ids[:, 6:] == 1).all()
    assert segments == [
        {"id": 0, "isthing": True, "category_id": 0, "area": 48},
        {"id": 1, "isthing": True, "category_id": 1, "area": 48},
    ]


def test_masks_of_one_stuff_class_are_merged_and_things_are_not():
    first_stuff = region(EVERY, slice(3, 6))
    first_stuff[:, 9:] = 1.0  # there it is below the second stuff mask and above the things
    masks = [region(EVERY, slice(0, 3)), first_stuff, region(EVERY, slice(6, 9)), region(EVERY, slice(9, 12))]
    ids, segments = paint(outputs([0, 2, 0, 2], masks))
    found = [(s["id"], s["category_id"], s["area"], s["isthing"]) for s in segments]
    assert found == [(0, 0, 24, True), (1, 2, 48, False), (2, 0, 24, True)]
    assert [np.unique(ids[:, c]).tolist() for c in (0, 4, 7, 10)] == [[0], [1], [2], [1]]


def test_the_pixels_of_a_merged_mask_go_to_the_best_of_the_other_masks():
    """As published: the second stuff mask is merged into the first, so it has no pixels left and is dropped."""
    thing, stuff = region(EVERY, slice(0, 3)), region(EVERY, slice(3, 6))
    thing[:, 9:] = 1.0
    _, segments = paint(outputs([0, 2, 2], [thing, stuff, region(EVERY, slice(9, 12))]))
    assert [(s["category_id"], s["area"]) for s in segments] == [(0, 24 + 24 + 24), (2, 24)]


def test_masks_with_a_low_score_or_no_object_get_no_pixel():
    masks = [region(EVERY, LEFT), region(EVERY, EVERY, logit=20.0), region(EVERY, EVERY, logit=30.0)]
    given = outputs([0, 1, 4], masks)
    given["pred_logits"][0, 1] = torch.tensor([0.0, 2.6, 0.0, 0.0, 0.0])  # 0.77
    ids, segments = paint(given)
    assert [s["category_id"] for s in segments] == [0] and (ids == 0).all()
    found = PostProcessPanoptic(THINGS, threshold=0.5)(given, [(8, 12)])[0]
    assert sorted(s["category_id"] for s in found["segments_info"]) == [1], "0.77 exceeds 0.5, and it covers all"


@pytest.mark.parametrize("pixels, kept", [(4, False), (5, True)])
def test_masks_of_four_pixels_are_dropped_and_their_pixels_given_to_the_next(pixels, kept):
    small = torch.full((8, 12), -5.0)
    small.view(-1)[:pixels] = 9.0
    ids, segments = paint(outputs([0, 1], [small, region(EVERY, EVERY)]))
    assert [s["category_id"] for s in segments] == ([0, 1] if kept else [1])
    assert sum(s["area"] for s in segments) == 96
    assert (ids == 0).all() != kept


def test_ids_are_consecutive_after_segments_are_dropped():
    tiny = region(slice(0, 1), slice(0, 2), logit=9.0)
    ids, segments = paint(outputs([1, 0, 2], [tiny, region(EVERY, LEFT), region(EVERY, RIGHT)]))
    assert [(s["id"], s["category_id"]) for s in segments] == [(0, 0), (1, 2)]
    assert np.unique(ids).tolist() == [0, 1]


@pytest.mark.parametrize("case", ["nothing predicted", "all below the threshold", "all tiny", "no queries"])
def test_nothing_kept_is_a_map_of_zeros_without_segments(case):
    given = outputs([4, 4], [region(EVERY, LEFT), region(EVERY, RIGHT)])
    size = (8, 12)
    if case == "all below the threshold":
        given["pred_logits"][:] = 0.0
    elif case == "all tiny":
        given = outputs([0, 1], [region(EVERY, LEFT, size=(2, 4)), region(EVERY, RIGHT, size=(2, 4))])
        size = (1, 4)
    elif case == "no queries":
        given = {"pred_logits": torch.zeros(1, 0, 5), "pred_masks": torch.zeros(1, 0, 8, 12)}
    ids, segments = paint(given, size, target=(3, 5) if case != "all tiny" else (1, 4))
    assert segments == [] and (ids == 0).all()
    assert ids.shape == ((3, 5) if case != "all tiny" else (1, 4))


def test_the_map_has_the_target_size_and_areas_are_counted_there():
    ids, segments = paint(outputs([0, 1], [region(EVERY, LEFT), region(EVERY, RIGHT)]), target=(16, 24))
    assert ids.shape == (16, 24) and [s["area"] for s in segments] == [192, 192]


@pytest.mark.parametrize("padded", [(8, 12), (16, 12), (16, 32)])
def test_padding_is_cut_off_before_masks_are_resized(padded):
    """The same image in batches with more and more padding, where predictions are arbitrary, gives the same map."""
    masks = [region(EVERY, LEFT), region(EVERY, RIGHT), region(slice(0, 0), EVERY)]
    wide = [torch.full(padded, 9.0 if query == 2 else -9.0) for query in range(3)]
    for mask, wider in zip(masks, wide):
        wider[:8, :12] = mask
    alone = paint(outputs([0, 1, 3], masks), target=(20, 30))
    ids, segments = paint(outputs([0, 1, 3], wide), target=(20, 30), padded_size=padded)
    assert np.array_equal(ids, alone[0]) and segments == alone[1]


def test_images_of_a_batch_are_independent():
    first, second = [region(EVERY, LEFT), region(EVERY, RIGHT)], [region(EVERY, EVERY), region(slice(0, 4), LEFT)]
    batch = {
        name: torch.cat([outputs([0, 2], first)[name], outputs([1, 3], second)[name]])
        for name in outputs([0], first[:1])
    }
    sizes, targets = [(8, 12), (4, 6)], [(9, 9), (8, 12)]
    results = PostProcessPanoptic(THINGS)(batch, torch.tensor(sizes), torch.tensor(targets))
    for index, (masks, labels) in enumerate(((first, [0, 2]), (second, [1, 3]))):
        cut = [mask[: sizes[index][0], : sizes[index][1]] for mask in masks]
        ids, segments = paint(outputs(labels, cut), sizes[index], targets[index])
        assert np.array_equal(ids_of(results[index]["png_string"]), ids)
        assert results[index]["segments_info"] == segments


def test_ids_beyond_255_reach_the_green_channel():
    queries = 300
    masks = torch.full((1, queries, 20, 90), -5.0)
    for query in range(queries):
        masks[0, query].view(-1)[query * 6 : query * 6 + 6] = 5.0
    logits = torch.zeros(1, queries, 5)
    logits[..., 0] = CONFIDENT
    ids, segments = paint({"pred_logits": logits, "pred_masks": masks}, (20, 90))
    assert (
        len(segments) == queries
        and ids.max() == 299
        and segments[-1] == {"id": 299, "isthing": True, "category_id": 0, "area": 6}
    )


def test_a_class_that_the_things_map_lacks_is_an_error():
    with pytest.raises(ValueError, match="class 3 was predicted, but is_thing_map does not contain it"):
        PostProcessPanoptic({0: True, 1: False})(outputs([3], [region(EVERY, EVERY)]), [(8, 12)])


def test_sizes_that_do_not_fit_the_batch_are_an_error():
    with pytest.raises(ValueError, match="2 processed and 2 target sizes for 1 images"):
        PostProcessPanoptic(THINGS)(outputs([0], [region(EVERY, EVERY)]), [(8, 12), (8, 12)])


def test_half_precision_is_raised_before_masks_are_resized():
    """There is no bfloat16 between 1 and 1.0078125: only in float32 does the resized second mask exceed the first."""
    flat, rising = torch.ones(2, 2), torch.tensor([[1.0, 1.0078125], [1.0, 1.0078125]])
    half = {name: value.bfloat16() for name, value in outputs([0, 1], [flat, rising]).items()}
    ids, _ = paint(half, (16, 16))
    assert (ids[:, 6:] == 1).all()
