"""The losses of all layers in one pass against the same losses layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.criterion import SetCriterion
from models.matcher import HungarianMatcher

CLASSES, QUERIES = 5, 7
LOSSES = ["labels", "boxes", "cardinality", "masks"]
KINDS = ("loss_ce", "loss_bbox", "loss_giou")


class LayerByLayer(SetCriterion):
    """Overrides a method without changing it, so that nothing is stacked."""

    def get_loss(self, *args, **options):
        return super().get_loss(*args, **options)


def build(kind: type[SetCriterion] = SetCriterion, losses: list[str] = LOSSES) -> SetCriterion:
    criterion = kind(CLASSES, HungarianMatcher(1, 5, 2), {}, 0.1, losses).double()
    criterion.empty_weight[:3] = torch.tensor([0.5, 2.0, 1.5])  # a wrong weight or divisor would show
    return criterion


def case(counts: list[int], layers: int, queries: tuple[int, ...] = ()) -> tuple[dict, list[dict]]:
    """float64 outputs of several layers with masks on the last one, and targets of `counts` objects."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    def layer(number: int) -> dict[str, Tensor]:
        shape = (len(counts), queries[number] if queries else QUERIES)
        logits, boxes = 4 * draw(*shape, CLASSES + 1), 0.1 + 0.3 * draw(*shape, 4)
        return {"pred_logits": logits.requires_grad_(), "pred_boxes": boxes.requires_grad_()}

    last, *inner = (layer(number) for number in range(layers))
    last["pred_masks"] = draw(len(counts), last["pred_logits"].shape[1], 4, 4).requires_grad_()
    targets = [
        {
            "labels": torch.randint(0, CLASSES, (n,), generator=generator),
            "boxes": 0.1 + 0.3 * draw(n, 4),
            "masks": draw(n, 8, 8) > 0.5,
        }
        for n in counts
    ]
    return last | ({"aux_outputs": inner} if inner else {}), targets


def values_and_gradients(criterion: SetCriterion, outputs: dict, targets: list[dict]) -> dict[str, Tensor]:
    """All losses, and the gradients of a sum in which each has a weight of its own."""
    losses = criterion(outputs, targets)
    learned = [value for value in losses.values() if value.requires_grad]
    inputs = [t for layer in (outputs, *outputs.get("aux_outputs", [])) for t in layer.values() if torch.is_tensor(t)]
    total = sum((1 + 0.3 * index) * value for index, value in enumerate(learned))
    gradients = torch.autograd.grad(total, inputs)
    return losses | {f"gradient_{index}": gradient for index, gradient in enumerate(gradients)}


@pytest.mark.parametrize("layers", [1, 2, 6])
@pytest.mark.parametrize("counts", [[3, 0, 5, 1], [QUERIES + 2, 2], [1]], ids=str)
def test_values_and_gradients_are_those_of_the_layers_alone(counts, layers):
    stacked, alone = (values_and_gradients(build(kind), *case(counts, layers)) for kind in (SetCriterion, LayerByLayer))
    assert list(stacked) == list(alone)
    for name, value in alone.items():
        torch.testing.assert_close(stacked[name], value.to(stacked[name].dtype), rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("counts", [[3, 0, 5, 1], [0, 0]], ids=str)
def test_the_plain_form_of_the_criterion_gives_the_same_values_and_gradients(monkeypatch, counts, layers):
    fast = values_and_gradients(build(), *case(counts, layers))
    plain = build()
    monkeypatch.setattr(plain, "forward", plain.plain_forward)
    plain = values_and_gradients(plain, *case(counts, layers))
    assert plain.keys() == fast.keys()
    for name, value in plain.items():
        torch.testing.assert_close(fast[name], value.to(fast[name].dtype), rtol=1e-12, atol=1e-12, msg=name)


def test_the_forms_agree_without_any_object():
    stacked, alone = (values_and_gradients(build(kind), *case([0, 0], 3)) for kind in (SetCriterion, LayerByLayer))
    for name, value in alone.items():
        torch.testing.assert_close(stacked[name], value, rtol=1e-12, atol=1e-12, msg=name)


def test_equal_logits_of_a_class_and_no_object_count_as_a_prediction():
    outputs, targets = case([2, 1], 1)
    tied = torch.zeros_like(outputs["pred_logits"])  # argmax takes the first of equal ones, a class
    found = [
        build(kind)(outputs | {"pred_logits": tied}, targets)["cardinality_error"]
        for kind in (SetCriterion, LayerByLayer)
    ]
    assert found[0] == found[1] == QUERIES - 1.5


def test_layers_with_other_numbers_of_queries_are_computed_one_by_one():
    outputs, targets = case([3, 2], 3, queries=(4, 6, 7))
    matcher = HungarianMatcher(1, 5, 2)
    layers = [{name: outputs[name] for name in ("pred_logits", "pred_boxes", "pred_masks")}, *outputs["aux_outputs"]]
    matches = [matcher(layer, targets) for layer in layers]
    losses, alone = (build(kind).compute_losses(layers, targets, matches, 5.0) for kind in (SetCriterion, LayerByLayer))
    assert losses == alone and {f"{name}_1" for name in KINDS} < losses.keys()


@pytest.mark.parametrize(("method", "loss"), [("loss_labels", "loss_ce"), ("loss_boxes", "loss_giou")])
@pytest.mark.parametrize("where", ["subclass", "object", "class"])
def test_a_method_of_ones_own_is_called_for_each_layer(monkeypatch, method, loss, where):
    calls = []

    def own(*args, **options):
        calls.append(options)
        return {loss: args[-4]["pred_logits"].sum() * 0 + 7}

    kind = SetCriterion
    if where == "subclass":
        kind = type("Own", (SetCriterion,), {method: own})
    elif where == "class":
        monkeypatch.setattr(SetCriterion, method, own)
    criterion = build(kind)
    if where == "object":
        monkeypatch.setattr(criterion, method, own)
    losses = criterion(*case([3, 2], 3))
    assert len(calls) == 3 and losses[loss] == losses[f"{loss}_0"] == losses[f"{loss}_1"] == 7
    others = [name for name in KINDS if name != loss and not (method == "loss_boxes" and name == "loss_bbox")]
    expected = build()(*case([3, 2], 3))
    assert all(torch.equal(losses[name], expected[name]) for name in others)


def test_a_loss_of_ones_own_is_computed_beside_the_others():
    class WithCount(SetCriterion):
        def get_loss(self, loss, outputs, targets, indices, num_boxes, **options):
            if loss == "pairs":
                return {"pairs": sum(len(queries) for queries, _ in indices)}
            return super().get_loss(loss, outputs, targets, indices, num_boxes, **options)

    losses = build(WithCount, ["labels", "pairs"])(*case([3, 2], 2))
    assert losses["pairs"] == losses["pairs_0"] == 5 and "loss_ce_0" in losses
