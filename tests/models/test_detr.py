"""The whole detector: inputs, outputs, initialisation, and what `build_model` builds."""

import argparse
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import build_model
from models.backbone import Backbone, Joiner
from models.detr import DETR, MLP, resolve_num_classes, resolve_things
from models.position_encoding import PositionEmbeddingSine
from models.postprocess import PostProcess
from models.segmentation import DETRsegm
from models.transformer import Transformer
from tests.helpers.golden_cases import parse, weighted_sum
from tests.helpers.golden_rules import FACTS, targets
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list
from util.rng import seed_everything

TINY = (
    "--backbone tiny --trainable_layers 5 --backbone_norm gn --hidden_dim 32 --nheads 4 --dim_feedforward 64"
    " --enc_layers 1 --dec_layers 3 --num_queries 8 --num_classes 5"
)


def detector(flags: str = "") -> tuple[DETR, nn.Module]:
    """Model, in evaluation mode, and criterion."""
    seed_everything(0)
    model, criterion, _ = build_model(parse(f"{TINY} {flags}"))
    return model.eval(), criterion


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 64, 96, generator=generator), torch.randn(3, 80, 64, generator=generator)]


class Features(nn.Module):
    """Replaces a backbone: returns the given features [B, 6, h, w], mask and positions [B, 16, h, w]."""

    num_channels = 6

    def __init__(self, tensors: Tensor, mask: Tensor, pos: Tensor):
        super().__init__()
        self.out = [NestedTensor(tensors, mask)], [pos]

    def forward(self, samples: NestedTensor) -> tuple[list[NestedTensor], list[Tensor]]:
        return self.out


# --- Outputs ----------------------------------------------------------------------------------------------------------


def test_logits_have_one_entry_more_than_classes_and_boxes_are_fractions():
    outputs = detector()[0](images())
    assert outputs["pred_logits"].shape == (2, 8, 5 + 1)
    assert outputs["pred_boxes"].shape == (2, 8, 4)
    assert (outputs["pred_boxes"] > 0).all() and (outputs["pred_boxes"] < 1).all()


def test_the_heads_are_applied_to_every_decoder_layer():
    model, _ = detector()
    seen: list[Tensor] = []
    model.transformer.register_forward_hook(lambda module, args, out: seen.append(out[0]))
    outputs = model(images())
    layers = [*outputs["aux_outputs"], outputs]  # first layer first; the last layer is not auxiliary
    assert len(seen[0]) == len(layers) == 3
    for hs, layer in zip(seen[0], layers):
        torch.testing.assert_close(layer["pred_logits"], F.linear(hs, *model.class_embed.parameters()))
        torch.testing.assert_close(layer["pred_boxes"], torch.sigmoid(model.bbox_embed(hs)))
    assert not torch.allclose(layers[0]["pred_logits"], layers[1]["pred_logits"])


def test_auxiliary_outputs_are_optional():
    assert set(detector()[0](images())) == {"pred_logits", "pred_boxes", "aux_outputs"}
    assert set(detector("--no_aux_loss")[0](images())) == {"pred_logits", "pred_boxes"}


def test_a_nested_tensor_a_list_and_a_tensor_are_the_same_batch():
    model, _ = detector()
    listed, nested = model(images()), model(nested_tensor_from_tensor_list(images()))
    assert torch.equal(listed["pred_logits"], nested["pred_logits"])
    stacked = torch.stack([images()[0]] * 2)
    assert torch.equal(model(stacked)["pred_boxes"], model(list(stacked))["pred_boxes"])


def test_detect_returns_the_features_behind_the_detections_by_name():
    model, _ = detector()
    found = model.detect(nested_tensor_from_tensor_list(images()))
    torch.testing.assert_close(found.outputs["pred_logits"], model.class_embed(found.queries))
    assert torch.equal(found.projected, model.input_proj(found.features[-1].tensors))
    assert torch.equal(found.mask, found.features[-1].mask) and found.mask.dtype == torch.bool
    assert found.queries.shape == (2, 8, 32) and found.memory.shape == found.projected.shape == (2, 32, 3, 3)
    assert not torch.equal(found.memory, found.projected)


def test_features_under_the_mask_do_not_affect_the_detections():
    generator = torch.Generator().manual_seed(2)
    features, pos = torch.randn(2, 6, 3, 4, generator=generator), torch.randn(2, 16, 3, 4, generator=generator)
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[1, 2:] = mask[1, :, 3:] = True
    transformer = Transformer(16, 2, 1, 2, 32, 0.0, return_intermediate_dec=True)
    model = DETR(Features(features, mask, pos), transformer, num_classes=5, num_queries=4)
    before = model(images())["pred_logits"]
    model.backbone = Features(features + 3 * mask[:, None], mask, pos)
    torch.testing.assert_close(model(images())["pred_logits"], before)
    model.backbone = Features(features + 3 * ~mask[:, None], mask, pos)
    assert not torch.allclose(model(images())["pred_logits"], before)


def test_evaluation_is_deterministic_and_training_is_not():
    model, _ = detector()
    assert torch.equal(model(images())["pred_logits"], model(images())["pred_logits"])
    model.train()
    assert not torch.equal(model(images())["pred_logits"], model(images())["pred_logits"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_type_returns_it_and_its_losses_are_at_least_float32(dtype):
    model, criterion = (module.to(dtype) for module in detector())
    outputs = model([image.to(dtype) for image in images()])
    assert outputs["pred_logits"].dtype == outputs["pred_boxes"].dtype == dtype
    losses = criterion(outputs, targets("detr", [2, 3], 5))
    wide = torch.promote_types(dtype, torch.float32)
    assert all(losses[name].dtype == wide and losses[name].isfinite() for name in criterion.weight_dict)


def test_the_model_runs_on_the_meta_device():
    with torch.device("meta"):
        model, criterion, _ = build_model(parse(f"{TINY} --device meta"))
    outputs = model([torch.empty(3, 64, 96, device="meta"), torch.empty(3, 80, 64, device="meta")])
    assert outputs["pred_logits"].is_meta and outputs["pred_logits"].shape == (2, 8, 6)
    assert outputs["aux_outputs"][0]["pred_boxes"].shape == (2, 8, 4)
    assert criterion.empty_weight.is_meta


def test_the_device_auto_is_resolved_when_building(monkeypatch):
    monkeypatch.setattr("models.detr.resolve_device", lambda: torch.device("meta"))
    model, criterion, _ = build_model(parse(f"{TINY} --device auto"))
    assert all(parameter.is_meta for parameter in model.parameters()) and criterion.empty_weight.is_meta


@pytest.mark.parametrize("flags", ["", "--no_aux_loss", "--pre_norm", "--position_embedding learned"])
def test_every_trainable_parameter_gets_a_gradient(flags):
    model, criterion = detector(flags)
    weighted_sum(criterion(model(images()), targets("detr", [2, 3], 5)), criterion.weight_dict).backward()
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in trainable.items() if parameter.grad is None] == []  # DDP waits for all of them
    assert all(parameter.grad.isfinite().all() for parameter in trainable.values())


# --- Initialisation ---------------------------------------------------------------------------------------------------


def test_query_embeddings_start_standard_normal():
    torch.manual_seed(0)
    model = DETR(Features(*[torch.zeros(0)] * 3), Transformer(256, 8, 1, 1, 64), 91, 100)
    queries = model.query_embed.weight
    assert queries.shape == (100, 256)
    assert queries.mean().item() == pytest.approx(0, abs=0.03)
    assert queries.std().item() == pytest.approx(1, abs=0.02)
    assert (queries.abs() < 1).float().mean().item() == pytest.approx(0.683, abs=0.02)  # normal, not uniform


def test_heads_and_projection_keep_pytorchs_initialisation():
    torch.manual_seed(0)
    backbone = Features(*[torch.zeros(0)] * 3)
    backbone.num_channels = 512
    model = DETR(backbone, Transformer(64, 4, 1, 1, 32), 91, 100)
    for layer in [model.class_embed, *model.bbox_embed.layers, model.input_proj]:
        bound = 1 / math.sqrt(layer.weight[0].numel())  # uniform within 1 / sqrt(fan-in), weights and biases
        assert 0.97 * bound < layer.weight.abs().max() <= bound, layer
        assert 0 < layer.bias.abs().max() <= bound, layer


def test_the_same_seed_builds_the_same_model():
    first, second = detector()[0].state_dict(), detector()[0].state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_one_seed_sets_every_generator():
    draws = []
    for seed in (7, 7, 8):
        seed_everything(seed)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]
    assert not set(draws[0]) & set(draws[2])


# --- The box head -----------------------------------------------------------------------------------------------------


def test_the_mlp_has_relu_between_its_layers_and_not_after_the_last():
    torch.manual_seed(0)
    mlp = MLP(6, 10, 4, 3)
    assert [tuple(layer.weight.shape) for layer in mlp.layers] == [(10, 6), (10, 10), (4, 10)]
    x = torch.randn(5, 6)
    expected = x
    for index, layer in enumerate(mlp.layers):
        expected = expected @ layer.weight.T + layer.bias
        expected = expected.clamp(min=0) if index < 2 else expected
    torch.testing.assert_close(mlp(x), expected)
    assert (expected < 0).any()


def test_the_box_head_has_three_layers_of_the_transformers_width():
    shapes = [tuple(layer.weight.shape) for layer in detector()[0].bbox_embed.layers]
    assert shapes == [(32, 32), (32, 32), (4, 32)]


# --- Building ---------------------------------------------------------------------------------------------------------


def test_a_detector_built_by_hand_equals_the_built_model():
    backbone = Backbone("tiny", True, False, False, trainable_layers=5, norm="gn")
    joiner = Joiner(backbone, PositionEmbeddingSine(16, normalize=True))
    transformer = Transformer(32, 4, 1, 3, 64, dropout=0.1, return_intermediate_dec=True)
    by_hand = DETR(joiner, transformer, num_classes=5, num_queries=8, aux_loss=True).eval()
    model, _ = detector()
    by_hand.load_state_dict(model.state_dict())
    outputs, expected = by_hand(images()), model(images())
    for ours, theirs in zip([outputs, *outputs["aux_outputs"]], [expected, *expected["aux_outputs"]], strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ("pred_logits", "pred_boxes"))


def test_a_backbone_of_unknown_width_takes_it_from_the_caller():
    joiner = Joiner(nn.Conv2d(3, 6, 1), PositionEmbeddingSine(8, normalize=True))
    joiner.num_channels = 6  # as the published code sets it
    assert DETR(joiner, Transformer(16, 2, 1, 1, 32), num_classes=5, num_queries=4).input_proj.in_channels == 6


@pytest.mark.parametrize(
    ("flags", "classes"),
    [("", 91), ("--dataset_file coco_panoptic", 250), ("--num_classes 4", 4)],
)
def test_the_default_numbers_of_classes_are_the_published_ones(flags, classes):
    assert resolve_num_classes(parse(flags)) == classes


def test_classes_need_no_num_classes_attribute():
    assert resolve_num_classes(argparse.Namespace(dataset_file="coco")) == 91


def test_the_published_flags_alone_build_a_model():
    published = {name: fact["default"] for name, fact in FACTS["cli"].items()}
    published |= {"backbone": "resnet18", "device": "cpu", "enc_layers": 1, "dec_layers": 1, "dim_feedforward": 32}
    published |= {"resume": "a checkpoint, which provides the weights of the backbone"}
    model, criterion, _ = build_model(argparse.Namespace(**published))
    assert model.class_embed.out_features == 92
    assert set(criterion.weight_dict) == {"loss_ce", "loss_bbox", "loss_giou"}


def test_the_parts_of_a_build_follow_the_flags():
    args = parse(f"{TINY} --eos_coef 0.3 --set_cost_class 2 --set_cost_bbox 3 --set_cost_giou 4 --bbox_loss_coef 6")
    model, criterion, postprocessors = build_model(args)
    assert (model.num_queries, model.aux_loss, criterion.num_classes) == (8, True, 5)
    assert criterion.losses == ["labels", "boxes", "cardinality"]
    assert criterion.empty_weight.tolist() == pytest.approx([1, 1, 1, 1, 1, 0.3])
    matcher = criterion.matcher
    assert (matcher.cost_class, matcher.cost_bbox, matcher.cost_giou) == (2, 3, 4)
    assert criterion.weight_dict["loss_bbox"] == criterion.weight_dict["loss_bbox_1"] == 6
    assert list(postprocessors) == ["bbox"] and isinstance(postprocessors["bbox"], PostProcess)


def test_masks_add_their_losses_and_postprocessors():
    flags = "--hidden_dim 128 --nheads 8 --masks --mask_loss_coef 3"
    model, criterion, postprocessors = build_model(parse(f"{TINY} {flags}"))
    assert isinstance(model, DETRsegm) and model.detr.num_queries == 8 and not model.freeze_detr
    assert criterion.losses == ["labels", "boxes", "cardinality", "masks"] and criterion.weight_dict["loss_mask"] == 3
    assert list(postprocessors) == ["bbox", "segm"]


@pytest.mark.parametrize("thing_ids, expected", [(None, [0, 1, 2, 3, 4]), ([1, 3], [1, 3])])
def test_things_come_from_the_settings_or_are_the_published_ones(thing_ids, expected):
    args = parse(f"{TINY} --hidden_dim 128 --nheads 8 --masks --dataset_file coco_panoptic")
    args.thing_ids, args.panoptic_threshold = thing_ids, 0.6
    postprocessors = build_model(args)[2]
    assert postprocessors["panoptic"].threshold == 0.6
    known = postprocessors["panoptic"].is_thing_map
    assert sorted(known) == [0, 1, 2, 3, 4] and [label for label, thing in known.items() if thing] == expected


def test_published_things_end_at_90():
    things = resolve_things(parse("--dataset_file coco_panoptic"), 250)
    assert things[90] and not things[91] and len(things) == 250
