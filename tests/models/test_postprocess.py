"""Predictions to detections: classes, scores, boxes and masks in pixels."""

import pytest
import torch
from torch import Tensor

from models.postprocess import PostProcess, PostProcessSegm


def outputs(
    batch: int = 2, queries: int = 5, classes: int = 3, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "pred_logits": torch.randn(batch, queries, classes + 1, generator=generator).to(dtype),
        "pred_boxes": torch.rand(batch, queries, 4, generator=generator).to(dtype),
    }


SIZES = torch.tensor([[120, 160], [90, 75]])  # (height, width)


def test_every_query_of_every_image_is_returned():
    results = PostProcess()(outputs(), SIZES)
    assert len(results) == 2
    for result in results:
        assert set(result) == {"scores", "labels", "boxes"}
        assert result["scores"].shape == result["labels"].shape == (5,)
        assert result["boxes"].shape == (5, 4)
        assert result["labels"].dtype == torch.int64


def test_an_unlikely_query_is_returned_too():
    logits = torch.tensor([[[0.0, 1.0, 0.5, 30.0]]])  # almost certainly no object
    (result,) = PostProcess()({"pred_logits": logits, "pred_boxes": torch.rand(1, 1, 4)}, SIZES[:1])
    assert result["labels"].tolist() == [1]
    assert 0 < result["scores"].item() < 1e-10


def test_no_object_is_not_a_label_but_part_of_the_softmax():
    logits = torch.tensor([[[1.0, 2.0, 0.0, 4.0]]])
    (result,) = PostProcess()({"pred_logits": logits, "pred_boxes": torch.rand(1, 1, 4)}, SIZES[:1])
    assert result["labels"].tolist() == [1]
    torch.testing.assert_close(result["scores"], logits.exp()[0, :, 1] / logits.exp().sum())


def test_the_best_class_is_chosen():
    prob = outputs()["pred_logits"].softmax(-1)
    for image, result in enumerate(PostProcess()(outputs(), SIZES)):
        for query in range(5):
            classes = prob[image, query, :-1].tolist()
            assert result["labels"][query].item() == classes.index(max(classes))
            assert result["scores"][query].item() == pytest.approx(max(classes))


def test_x_scales_by_width_and_y_by_height():
    boxes = torch.tensor([[[0.5, 0.25, 0.2, 0.1]]]).repeat(2, 1, 1)
    first, second = PostProcess()({"pred_logits": torch.zeros(2, 1, 4), "pred_boxes": boxes}, SIZES)
    torch.testing.assert_close(first["boxes"], torch.tensor([[0.4 * 160, 0.2 * 120, 0.6 * 160, 0.3 * 120]]))
    torch.testing.assert_close(second["boxes"], torch.tensor([[0.4 * 75, 0.2 * 90, 0.6 * 75, 0.3 * 90]]))


def test_boxes_that_exceed_the_image_are_not_clipped():
    boxes = torch.tensor([[[0.0, 1.0, 0.5, 0.5]]])
    (result,) = PostProcess()({"pred_logits": torch.zeros(1, 1, 4), "pred_boxes": boxes}, SIZES[:1])
    torch.testing.assert_close(result["boxes"], torch.tensor([[-40.0, 90.0, 40.0, 150.0]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_raised(dtype):
    halves = outputs(dtype=dtype)
    results = PostProcess()(halves, SIZES)
    expected = PostProcess()({name: value.float() for name, value in halves.items()}, SIZES)
    for result, reference in zip(results, expected):
        assert result["scores"].dtype == result["boxes"].dtype == torch.float32
        assert torch.equal(result["boxes"], reference["boxes"]) and torch.equal(result["scores"], reference["scores"])


def test_float64_is_kept():
    result = PostProcess()(outputs(dtype=torch.float64), SIZES)[0]
    assert result["scores"].dtype == result["boxes"].dtype == torch.float64


def test_results_have_no_gradient():
    results = PostProcess()({name: value.requires_grad_() for name, value in outputs().items()}, SIZES)
    assert not any(value.requires_grad for result in results for value in result.values())


@pytest.mark.parametrize("sizes", [SIZES[:1], SIZES.repeat(2, 1), SIZES.repeat(1, 2), SIZES[0]])
def test_sizes_that_do_not_fit_the_batch_are_refused(sizes):
    with pytest.raises(ValueError, match=r"target_sizes has shape .* 2 images need \(2, 2\)"):
        PostProcess()(outputs(), sizes)


# --- Masks ----------------------------------------------------------------------------------------------------------


def mask_logits(size: tuple[int, int], images: int = 2, queries: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(images, queries, *size, generator=generator) * 4


def masks_of(logits: Tensor, originals, seen, **options) -> list[Tensor]:
    results = [{"scores": torch.zeros(len(image))} for image in logits]
    found = PostProcessSegm(**options.pop("init", {}))(results, {"pred_masks": logits}, originals, seen, **options)
    assert found is results and set(results[0]) == {"scores", "masks"}
    return [result["masks"] for result in results]


def test_masks_are_0_or_1_in_the_original_size_of_each_image():
    originals = [(30, 20), (9, 11)]
    for masks, size in zip(masks_of(mask_logits((6, 8)), originals, [(20, 32), (24, 12)]), originals):
        assert masks.shape == (5, 1, *size) and masks.dtype == torch.uint8
        assert masks.unique().tolist() == [0, 1]


def test_a_mask_covers_the_pixels_above_the_threshold():
    logits = torch.tensor([[[[-0.1, 0.0], [0.1, 3.0]]]])
    assert masks_of(logits, [(2, 2)], [(2, 2)])[0].flatten().tolist() == [0, 0, 1, 1]
    assert masks_of(logits, [(2, 2)], [(2, 2)], init={"threshold": 0.9})[0].flatten().tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("padded", [(8, 12), (16, 12), (64, 128)])
def test_padding_is_cut_off_before_masks_are_resized(padded):
    exact = mask_logits((8, 12), images=1)
    wide = torch.full((1, 5, *padded), 9.0)
    wide[..., :8, :12] = exact
    (expected,) = masks_of(exact, [(30, 40)], [(8, 12)])
    (masks,) = masks_of(wide, [(30, 40)], [(8, 12)], padded_size=padded)
    assert torch.equal(masks, expected)


def test_the_masks_of_a_batch_are_independent():
    logits, sizes, originals = mask_logits((8, 12)), [(8, 9), (5, 12)], [(16, 20), (7, 13)]
    together = masks_of(logits, torch.tensor(originals), torch.tensor(sizes))
    for index, (height, width) in enumerate(sizes):
        (alone,) = masks_of(
            logits[index : index + 1, :, :height, :width], originals[index : index + 1], [(height, width)]
        )
        assert torch.equal(together[index], alone)


def test_resizing_queries_in_parts_changes_nothing(monkeypatch):
    logits = mask_logits((6, 8), images=1, queries=40)
    (parts,) = masks_of(logits, [(30, 20)], [(24, 32)])
    monkeypatch.setattr(PostProcessSegm, "QUERIES_AT_ONCE", 1000)
    assert torch.equal(masks_of(logits, [(30, 20)], [(24, 32)])[0], parts)


def test_mask_sizes_that_do_not_fit_the_batch_are_an_error():
    with pytest.raises(ValueError, match="1 original and 2 processed sizes for 2 images"):
        masks_of(mask_logits((6, 8)), [(30, 20)], [(20, 32), (24, 12)])
