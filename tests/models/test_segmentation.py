"""The mask head: equality with a plain form, trainable parts, queries in chunks, initialisation, losses."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import build_model
from models.detr import DETR
from models.segmentation import DETRsegm, MaskHeadSmallConv, MHAttentionMap, dice_loss, sigmoid_focal_loss
from tests.helpers.golden_cases import parse, weighted_sum
from tests.helpers.golden_rules import targets
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list
from util.rng import seed_everything

TINY = (
    "--backbone tiny --trainable_layers 5 --backbone_norm gn --hidden_dim 128 --nheads 8 --dim_feedforward 64"
    " --enc_layers 1 --dec_layers 2 --num_queries 7 --num_classes 5 --dropout 0 --masks"
)
SIZES = [(64, 96), (80, 64)]


def build(flags: str = "") -> tuple[DETRsegm, nn.Module]:
    """Model, in evaluation mode, and criterion."""
    seed_everything(0)
    model, criterion, _ = build_model(parse(f"{TINY} {flags}"))
    return model.eval(), criterion


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, *size, generator=generator) for size in SIZES]


def inputs(queries: int = 7) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Features, attention maps and three finer levels for a head of 128 channels and 8 heads."""
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> Tensor:
        return torch.randn(2, *shape, generator=generator)

    return draw(128, 3, 4), draw(queries, 8, 3, 4), [draw(24, 6, 8), draw(16, 12, 15), draw(8, 23, 30)]


def head(query_chunk: int | None = None) -> MaskHeadSmallConv:
    torch.manual_seed(3)
    mask_head = MaskHeadSmallConv(136, [24, 16, 8], 128, query_chunk=query_chunk)
    for module in mask_head.modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm):
            nn.init.normal_(module.bias)  # with zeros a bias in the wrong place would have no effect
    return mask_head


# --- The model ------------------------------------------------------------------------------------------------------


def test_every_query_has_a_mask_of_a_quarter_of_the_padded_size():
    model, _ = build()
    outputs = model(images())
    assert outputs["pred_masks"].shape == (2, 7, 80 // 4, 96 // 4)
    assert outputs["pred_logits"].shape == (2, 7, 6)


def test_boxes_and_classes_equal_the_detectors():
    model, _ = build()
    samples = nested_tensor_from_tensor_list(images())
    with torch.no_grad():
        with_masks, without = model(samples), model.detr(samples)
    for name in ("pred_logits", "pred_boxes"):
        assert torch.equal(with_masks[name], without[name])
    assert len(with_masks["aux_outputs"]) == 1


def test_a_batch_may_be_a_list_or_a_tensor():
    model, _ = build()
    with torch.no_grad():
        nested = model(nested_tensor_from_tensor_list(images()))["pred_masks"]
        assert torch.equal(model(images())["pred_masks"], nested)
        assert model(torch.stack([images()[0]]))["pred_masks"].shape == (1, 7, 16, 24)


def test_gradients_reach_detector_and_mask_head():
    model, criterion = build()
    truth = targets("segm", [2, 3], 5, SIZES)
    losses = criterion(model(images()), truth)
    assert {"loss_mask", "loss_dice"} <= losses.keys() and "loss_mask_0" not in losses
    (losses["loss_mask"] + losses["loss_dice"]).backward()
    for part in (model.mask_head, model.bbox_attention, model.detr.transformer, model.detr.backbone):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_a_batch_without_objects_trains():
    model, criterion = build()
    losses = criterion(model(images()), targets("none", [0, 0], 5, SIZES))
    weighted_sum(losses, criterion.weight_dict).backward()
    assert losses["loss_mask"] == 0 and losses["loss_dice"] == 0
    assert all(p.grad.isfinite().all() for p in model.mask_head.parameters())


def test_a_frozen_detector_has_no_gradients_and_no_dropout_while_the_mask_head_trains():
    detr = build("--dropout 0.5")[0].detr
    model = DETRsegm(detr, freeze_detr=True).train()
    trainable = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {"mask_head", "bbox_attention"}
    assert model.mask_head.training and not any(module.training for module in model.detr.modules())
    first, second = model(images()), model(images())
    assert torch.equal(first["pred_masks"], second["pred_masks"]), "a dropout of 0.5 would make them differ"


def test_a_detector_that_is_not_frozen_trains_with_the_mask_head():
    model = build()[0].train()
    assert model.detr.training and all(p.requires_grad for p in model.detr.transformer.parameters())


def test_frozen_weights_freeze_the_built_detector():
    frozen = build("--frozen_weights box.pth")[0]
    assert frozen.freeze_detr and not any(p.requires_grad for p in frozen.detr.parameters())


def test_a_backbone_with_one_level_is_refused():
    detr = build_model(parse(TINY.replace("--masks", "")))[0]
    with pytest.raises(ValueError, match="return_interm_layers=True"):
        DETRsegm(detr)


@pytest.mark.parametrize("backbone", ["tiny", "resnet18", "resnet34", "resnet50"])
def test_widths_follow_the_backbones_channels(backbone):
    with torch.device("meta"):
        model = build_model(parse(f"{TINY} --backbone {backbone} --backbone_norm frozen_bn --device meta"))[0]
    channels = model.detr.backbone[0].channels
    adapters = [model.mask_head.adapter1, model.mask_head.adapter2, model.mask_head.adapter3]
    assert [adapter.in_channels for adapter in adapters] == [channels[2], channels[1], channels[0]]


def test_masks_do_not_depend_on_the_query_chunk():
    model, _ = build()
    with torch.no_grad():
        expected = None
        for chunk in (None, 1, 3, 7, 50):
            model.mask_head.query_chunk = chunk
            masks = model(images())["pred_masks"]
            expected = masks if expected is None else expected
            torch.testing.assert_close(masks, expected, rtol=1e-5, atol=1e-5)


def test_additional_padding_gets_no_attention():
    """The attention to the image itself does not change with the padding."""
    q, k = torch.randn(1, 2, 16), torch.randn(1, 16, 3, 4)
    attention = MHAttentionMap(16, 16, 4)
    wider = F.pad(k, (0, 2, 0, 1), value=7.0)
    mask = torch.ones(1, 4, 6, dtype=torch.bool)
    mask[:, :3, :4] = False
    padded = attention(q, wider, mask)
    torch.testing.assert_close(padded[..., :3, :4], attention(q, k))
    assert padded[..., 3:, :].abs().max() == 0 and padded[..., 4:].abs().max() == 0


# --- Attention map and head -----------------------------------------------------------------------------------------


def test_attention_sums_to_one_over_heads_and_positions_together():
    attention = MHAttentionMap(16, 16, 4)
    weights = attention(torch.randn(2, 5, 16), torch.randn(2, 16, 3, 4))
    assert weights.shape == (2, 5, 4, 3, 4)
    torch.testing.assert_close(weights.sum((2, 3, 4)), torch.ones(2, 5))


def test_attention_is_the_scaled_product_of_both_projections():
    torch.manual_seed(0)
    attention = MHAttentionMap(16, 8, 2)
    nn.init.normal_(attention.k_linear.bias)
    q, k = torch.randn(1, 3, 16), torch.randn(1, 16, 2, 5)
    queries = attention.q_linear(q)[0]  # [Q, 8]
    keys = attention.k_linear(k[0].permute(1, 2, 0))  # [h, w, 8]
    for query in range(3):
        scores = [(keys[..., c : c + 4] * queries[query, c : c + 4]).sum(-1) / math.sqrt(4) for c in (0, 4)]
        expected = torch.stack(scores).flatten().softmax(0).view(2, 2, 5)
        torch.testing.assert_close(attention(q, k)[0, query], expected)


def test_attention_starts_xavier_with_zero_biases():
    torch.manual_seed(0)
    attention = MHAttentionMap(64, 64, 8)
    for linear in (attention.q_linear, attention.k_linear):
        bound = math.sqrt(6 / 128)
        assert linear.bias.abs().max() == 0
        assert 0.95 * bound < linear.weight.abs().max() <= bound


def test_the_head_equals_the_plain_form():
    mask_head, (features, attention, levels) = head().double(), inputs()
    given = features.double(), attention.double(), [level.double() for level in levels]
    torch.testing.assert_close(mask_head(*given), mask_head.plain_forward(*given), rtol=1e-10, atol=1e-12)


def test_the_head_has_the_gradients_of_the_plain_form():
    ours, plain = head().double(), head().double()
    features, attention, levels = inputs()
    wide = features.double(), attention.double(), [level.double() for level in levels]
    ours(*wide).square().sum().backward()
    plain.plain_forward(*wide).square().sum().backward()
    # A bias before a group norm with one channel per group has a zero gradient, up to rounding.
    scale = max(parameter.grad.abs().max().item() for parameter in plain.parameters())
    for (name, a), b in zip(ours.named_parameters(), plain.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12 * scale, msg=name)


def test_queries_are_chunked_at_evaluation_and_not_in_training():
    mask_head, calls = head(query_chunk=3), []
    mask_head.lay2.register_forward_pre_hook(lambda module, args: calls.append(args[0].shape[0]))
    mask_head.eval()(*inputs())
    assert calls == [2 * 3, 2 * 3, 2 * 1]
    calls.clear()
    mask_head.train()(*inputs())
    assert calls == [2 * 7]


def test_the_head_starts_kaiming_with_zero_biases():
    torch.manual_seed(0)
    mask_head = MaskHeadSmallConv(136, [24, 16, 8], 128)
    convolutions = [module for module in mask_head.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 9
    for conv in convolutions:
        bound = math.sqrt(3 / (conv.in_channels * conv.kernel_size[0] ** 2))
        assert conv.bias.abs().max() == 0
        assert 0.9 * bound < conv.weight.abs().max() <= bound


@pytest.mark.parametrize("hidden_dim, nheads", [(64, 8), (128, 4), (192, 8), (32, 4)])
def test_widths_that_group_norm_cannot_divide_are_refused_with_valid_ones(hidden_dim, nheads):
    with pytest.raises(ValueError, match="--hidden_dim 128, 256, 384 .* --nheads 8, 16, 32"):
        MaskHeadSmallConv(hidden_dim + nheads, [24, 16, 8], hidden_dim)


def test_a_query_chunk_of_0_is_refused():
    with pytest.raises(ValueError, match="query_chunk must be at least 1.*got 0"):
        head(query_chunk=0)


# --- Losses ---------------------------------------------------------------------------------------------------------


def test_dice_loss_by_hand():
    logits = torch.tensor([[20.0, 20.0, -20.0, -20.0], [20.0, -20.0, -20.0, -20.0]])
    truth = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    overlap_one, overlap_none = 1 - (2 * 1 + 1) / (2 + 1 + 1), 1 - 1 / (1 + 1 + 1)
    assert dice_loss(logits, truth, 4).item() == pytest.approx((overlap_one + overlap_none) / 4, rel=1e-5)


def test_focal_loss_by_hand():
    logits, truth = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]])
    object_pixel = 0.25 * (1 - 0.5) ** 2 * -math.log(0.5)
    ground_pixel = 0.75 * 0.75**2 * -math.log(0.25)
    mean = (object_pixel + ground_pixel) / 2
    assert sigmoid_focal_loss(logits, truth, 3).item() == pytest.approx(mean / 3, rel=1e-5)


def test_focal_loss_without_gamma_and_alpha_is_cross_entropy():
    torch.manual_seed(0)
    logits, truth = torch.randn(2, 30), torch.randint(0, 2, (2, 30)).float()
    entropy = F.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(sigmoid_focal_loss(logits, truth, 2, alpha=-1, gamma=0), entropy)


def padded(masks: Tensor, height: int, width: int) -> Tensor:
    """Predictions of a batch with more padding, where they are arbitrary."""
    return F.pad(masks, (0, width - masks.shape[-1], 0, height - masks.shape[-2]), value=9.0)


def test_mask_losses_ignore_additional_padding():
    _, criterion = build()
    truth = targets("segm", [2, 3], 5, [(64, 128), (128, 64)])
    generator = torch.Generator().manual_seed(5)
    outputs = {
        "pred_logits": torch.randn(2, 7, 6, generator=generator),
        "pred_boxes": torch.rand(2, 7, 4, generator=generator) * 0.5 + 0.2,
        "pred_masks": torch.randn(2, 7, 128, 128, generator=generator),  # at full size, so resizing blurs no border
    }
    wide = outputs | {"pred_masks": padded(outputs["pred_masks"], 256, 384)}
    exact, padded_more = criterion(outputs, truth), criterion(wide, truth, padded_size=(256, 384))
    for name in ("loss_mask", "loss_dice"):
        torch.testing.assert_close(padded_more[name], exact[name])
    guessed = criterion(wide, truth)
    assert not torch.isclose(guessed["loss_dice"], exact["loss_dice"]), "padding is resized into the image"


def test_half_precision_masks_are_compared_in_float32():
    _, criterion = build()
    truth = targets("segm", [2], 5, [(32, 32)])
    outputs = {
        "pred_logits": torch.randn(1, 7, 6),
        "pred_boxes": torch.rand(1, 7, 4) * 0.5 + 0.2,
        "pred_masks": torch.randn(1, 7, 8, 8),
    }
    full = criterion(outputs | {"pred_masks": outputs["pred_masks"].bfloat16().float()}, truth)
    half = criterion(outputs | {"pred_masks": outputs["pred_masks"].bfloat16()}, truth)
    assert half["loss_mask"].dtype == torch.float32 and torch.equal(half["loss_mask"], full["loss_mask"])


def test_boxes_and_masks_use_the_same_detect(monkeypatch):
    model, _ = build()
    seen = []
    detect = DETR.detect
    monkeypatch.setattr(DETR, "detect", lambda self, samples: (seen.append(type(samples)), detect(self, samples))[1])
    model(images())
    model.detr(images())
    assert seen == [NestedTensor, NestedTensor]
