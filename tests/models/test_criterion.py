"""The set loss: values computed by hand, and which of them are optimised or only logged."""

import argparse
import math

import pytest
import torch
from torch import Tensor

from models.criterion import SetCriterion, build_weight_dict
from models.matcher import HungarianMatcher
from util.box_ops import box_cxcywh_to_xyxy, generalized_box_iou

CLASSES = 3
LOSSES = ["labels", "boxes", "cardinality"]
WEIGHTS = {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
CONFIDENT = 12.0  # a logit that makes the probability of all other classes almost 0


def criterion(losses: list[str] = LOSSES, eos_coef: float = 0.1) -> SetCriterion:
    return SetCriterion(CLASSES, HungarianMatcher(1, 5, 2), WEIGHTS, eos_coef, losses)


def random_case(counts: list[int], queries: int = 6, layers: int = 1, seed: int = 0) -> tuple[dict, list[dict]]:
    """Outputs that require gradients, with `layers - 1` auxiliary ones, and targets of `counts` objects."""
    generator = torch.Generator().manual_seed(seed)

    def boxes(*shape: int) -> Tensor:
        return 0.1 + 0.3 * torch.rand(*shape, 4, generator=generator)

    def layer() -> dict[str, Tensor]:
        logits = torch.randn(len(counts), queries, CLASSES + 1, generator=generator)
        return {"pred_logits": logits.requires_grad_(), "pred_boxes": boxes(len(counts), queries).requires_grad_()}

    outputs = layer() | ({"aux_outputs": [layer() for _ in range(layers - 1)]} if layers > 1 else {})
    labels = [torch.randint(0, CLASSES, (n,), generator=generator) for n in counts]
    return outputs, [{"labels": label, "boxes": boxes(len(label))} for label in labels]


def two_objects() -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """One image, four queries: query 1 is close to object 0 and query 3 to object 1."""
    target = {"labels": torch.tensor([2, 0]), "boxes": torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]])}
    boxes = torch.full((1, 4, 4), 0.01)
    boxes[0, 1] = torch.tensor([0.25, 0.25, 0.5, 0.25])  # half of object 0, with the same centre
    boxes[0, 3] = torch.tensor([0.80, 0.75, 0.5, 0.5])  # object 1, moved by a tenth of its width
    logits = torch.tensor([[[0.0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 2], [0, 3, 0, 0]]])
    return {"pred_logits": logits, "pred_boxes": boxes}, [target]


# --- Classification ---------------------------------------------------------------------------------------------------


def test_classification_is_a_mean_weighted_by_class():
    loss = criterion()(*two_objects())["loss_ce"].item()
    log_p = two_objects()[0]["pred_logits"][0].log_softmax(-1)
    wanted, weights = [3, 2, 3, 0], [0.1, 1.0, 0.1, 1.0]  # index 3 is "no object"
    terms = [-w * log_p[query, label].item() for query, (label, w) in enumerate(zip(wanted, weights))]
    assert loss == pytest.approx(sum(terms) / sum(weights), rel=1e-5)
    assert abs(loss - sum(terms) / len(terms)) > 0.1


def test_only_no_object_has_a_lower_weight():
    assert criterion(eos_coef=0.25).empty_weight.tolist() == [1, 1, 1, 0.25]


def test_the_class_weights_are_a_buffer_that_follows_the_module():
    assert list(criterion().parameters()) == []
    assert list(criterion().state_dict()) == ["empty_weight"]
    assert criterion().to("meta").empty_weight.is_meta


def test_unmatched_queries_have_the_target_no_object():
    logits = torch.zeros(1, 4, CLASSES + 1)
    logits[0, :, -1] = CONFIDENT
    logits[0, 1, :], logits[0, 3, :] = torch.tensor([0, 0, CONFIDENT, 0]), torch.tensor([CONFIDENT, 0, 0, 0])
    outputs, targets = two_objects()
    assert criterion()(outputs | {"pred_logits": logits}, targets)["loss_ce"] < 1e-4
    wrong = logits.clone()
    wrong[0, 0] = torch.tensor([0, CONFIDENT, 0, 0])
    assert criterion()(outputs | {"pred_logits": wrong}, targets)["loss_ce"] > 0.1


# --- Boxes ------------------------------------------------------------------------------------------------------------


def test_box_losses_are_sums_over_pairs_divided_by_the_number_of_boxes():
    losses = criterion()(*two_objects())
    assert losses["loss_bbox"].item() == pytest.approx((0.25 + 0.05) / 2, rel=1e-5)
    assert losses["loss_giou"].item() == pytest.approx(((1 - 0.5) + (1 - 0.45 / 0.55)) / 2, rel=1e-5)


def test_the_boxes_of_the_whole_batch_are_counted():
    outputs, targets = two_objects()
    one_image = criterion()(outputs, targets)
    empty = {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}
    batch = criterion()({name: torch.cat([value] * 3) for name, value in outputs.items()}, [*targets, empty, *targets])
    torch.testing.assert_close(batch["loss_bbox"], one_image["loss_bbox"])
    torch.testing.assert_close(batch["loss_giou"], one_image["loss_giou"])


def test_objects_without_a_query_count_in_the_divisor():
    outputs, targets = random_case([5], queries=2)
    losses = criterion()(outputs, targets)
    ((src, tgt),) = HungarianMatcher(1, 5, 2)(outputs, targets)
    found, wanted = outputs["pred_boxes"][0, src], targets[0]["boxes"][tgt]
    giou = generalized_box_iou(box_cxcywh_to_xyxy(found), box_cxcywh_to_xyxy(wanted)).diag()
    assert losses["loss_bbox"].item() == pytest.approx((found - wanted).abs().sum().item() / 5, rel=1e-5)
    assert losses["loss_giou"].item() == pytest.approx((1 - giou).sum().item() / 5, rel=1e-5)


def test_a_batch_without_objects_has_finite_losses_with_gradients():
    outputs, targets = random_case([0, 0], layers=2)
    losses = criterion()(outputs, targets)
    assert all(value.isfinite() for value in losses.values())
    for suffix, layer in (("", outputs), ("_0", outputs["aux_outputs"][0])):
        assert losses["loss_bbox" + suffix] == losses["loss_giou" + suffix] == 0
        sum(losses[name + suffix] for name in WEIGHTS).backward(retain_graph=True)  # the layers share one graph
        assert layer["pred_logits"].grad.any() and layer["pred_logits"].grad.isfinite().all()
        assert not layer["pred_boxes"].grad.any()  # they exist and are zero


def share_boxes_with(monkeypatch: pytest.MonkeyPatch, others: float, world_size: int) -> None:
    """Simulate `world_size` processes, the others of which have `others` boxes in total."""
    monkeypatch.setattr("util.dist.is_dist_avail_and_initialized", lambda: True)
    monkeypatch.setattr("util.dist.get_world_size", lambda: world_size)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda count: count.add_(others))


def test_the_number_of_boxes_is_averaged_over_the_processes(monkeypatch):
    alone = criterion()(*two_objects())
    share_boxes_with(monkeypatch, others=7, world_size=3)  # (2 + 7) / 3 boxes per process
    shared = criterion()(*two_objects())
    torch.testing.assert_close(shared["loss_bbox"], alone["loss_bbox"] * 2 / 3)
    torch.testing.assert_close(shared["loss_giou"], alone["loss_giou"] * 2 / 3)
    assert torch.equal(shared["loss_ce"], alone["loss_ce"]), "the classification loss is a mean over the process"


def test_the_average_number_of_boxes_is_at_least_one(monkeypatch):
    alone = criterion()(*two_objects())
    share_boxes_with(monkeypatch, others=0, world_size=8)  # 2 / 8 boxes per process
    torch.testing.assert_close(criterion()(*two_objects())["loss_bbox"], alone["loss_bbox"] * 2)


# --- Auxiliary layers -------------------------------------------------------------------------------------------------


def test_every_layer_is_matched_separately():
    box, elsewhere = [0.3, 0.3, 0.2, 0.2], [0.8, 0.8, 0.1, 0.1]
    targets = [{"labels": torch.tensor([1]), "boxes": torch.tensor([box])}]
    object_, nothing = [0, CONFIDENT, 0, 0], [0, 0, 0, CONFIDENT]
    last = {"pred_logits": torch.tensor([[object_, nothing]]), "pred_boxes": torch.tensor([[box, elsewhere]])}
    first = {name: value.flip(1) for name, value in last.items()}  # the other query has found the object
    losses = criterion()(last | {"aux_outputs": [first]}, targets)
    assert max(losses[name + suffix] for name in WEIGHTS for suffix in ("", "_0")) < 1e-3


def test_the_losses_of_a_layer_do_not_depend_on_other_layers():
    outputs, targets = random_case([3, 2], layers=3)
    losses = criterion()(outputs, targets)
    for index, layer in enumerate(outputs["aux_outputs"]):
        alone = criterion()(layer, targets)
        for name in (*WEIGHTS, "cardinality_error"):
            torch.testing.assert_close(losses[f"{name}_{index}"], alone[name])
    alone = criterion()({name: outputs[name] for name in ("pred_logits", "pred_boxes")}, targets)
    for name, value in alone.items():
        torch.testing.assert_close(losses[name], value)


def test_only_the_last_layer_has_a_class_error():
    names = set(criterion()(*random_case([3], layers=3)))
    main = {*WEIGHTS, "class_error", "cardinality_error"}
    assert names == main | {f"{name}_{i}" for name in main - {"class_error"} for i in range(2)}


# --- Logs -------------------------------------------------------------------------------------------------------------


def test_logs_have_no_gradient_and_no_weight():
    args = argparse.Namespace(bbox_loss_coef=5, giou_loss_coef=2, masks=False, aux_loss=True, dec_layers=3)
    weights = build_weight_dict(args)
    for name, value in criterion()(*random_case([3, 2], layers=3)).items():
        is_log = name.startswith(("class_error", "cardinality_error"))
        assert value.requires_grad == (not is_log), name
        assert (name in weights) == (not is_log), name


def test_class_error_is_the_percentage_of_matched_queries_with_a_wrong_class():
    assert criterion()(*two_objects())["class_error"] == 50  # query 1 predicts 2, query 3 predicts 1 instead of 0


def test_class_error_without_objects_is_100():
    assert criterion()(*random_case([0]))["class_error"] == 100


def test_cardinality_error_is_the_mean_difference_of_the_counts():
    outputs, targets = two_objects()
    quiet = torch.zeros_like(outputs["pred_logits"])
    quiet[..., -1] = 1.0  # predicts no object, 2 too few; the first image predicts its 2 objects
    outputs = {
        "pred_logits": torch.cat([outputs["pred_logits"], quiet]),
        "pred_boxes": outputs["pred_boxes"].repeat(2, 1, 1),
    }
    assert criterion()(outputs, targets * 2)["cardinality_error"] == 1


def test_the_order_of_queries_and_objects_does_not_matter():
    outputs, targets = random_case([4])
    shuffled = {name: value[:, torch.tensor([3, 0, 5, 1, 4, 2])] for name, value in outputs.items()}
    reversed_ = [{name: value.flip(0) for name, value in target.items()} for target in targets]
    expected, losses = criterion()(outputs, targets), criterion()(shuffled, reversed_)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


def test_losses_are_unweighted():
    outputs, targets = random_case([3])
    heavy = SetCriterion(CLASSES, HungarianMatcher(1, 5, 2), {"loss_ce": 100}, 0.1, LOSSES)
    assert torch.equal(heavy(outputs, targets)["loss_ce"], criterion()(outputs, targets)["loss_ce"])


@pytest.mark.parametrize(("dtype", "raised"), [(torch.float16, torch.float32), (torch.float64, torch.float64)])
def test_half_types_are_raised_and_float64_is_kept(dtype, raised):
    outputs, targets = random_case([3, 0], layers=2)

    def to(layer: dict[str, Tensor], kind: torch.dtype) -> dict[str, Tensor]:
        return {name: layer[name].detach().to(kind) for name in ("pred_logits", "pred_boxes")}

    def run(kind: torch.dtype) -> dict[str, Tensor]:
        layers = [to(to(layer, dtype), kind) for layer in (outputs, outputs["aux_outputs"][0])]
        return criterion()(layers[0] | {"aux_outputs": layers[1:]}, targets)

    losses, expected = run(dtype), run(raised)
    for name in (name + suffix for name in WEIGHTS for suffix in ("", "_0")):
        assert losses[name].dtype == raised
        assert torch.equal(losses[name], expected[name]) and math.isfinite(losses[name])


def test_only_the_requested_losses_are_computed():
    assert set(criterion(["boxes"])(*random_case([3], layers=2))) == {
        f"{name}{suffix}" for name in ("loss_bbox", "loss_giou") for suffix in ("", "_0")
    }


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="unknown loss 'colour'.*labels"):
        criterion(["colour"])(*random_case([1]))


@pytest.mark.parametrize(("aux_loss", "layers"), [(True, 3), (True, 1), (False, 3)])
def test_the_weights_of_the_command_line(aux_loss, layers):
    args = argparse.Namespace(bbox_loss_coef=7, giou_loss_coef=3, masks=False, aux_loss=aux_loss, dec_layers=layers)
    suffixes = [""] + ([f"_{i}" for i in range(layers - 1)] if aux_loss else [])
    values = {"loss_ce": 1, "loss_bbox": 7, "loss_giou": 3}
    assert build_weight_dict(args) == {name + suffix: value for suffix in suffixes for name, value in values.items()}
