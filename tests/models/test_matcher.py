"""Matching: the cheapest of all assignments, with costs computed one pair at a time."""

import argparse
import itertools
import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from models.matcher import HungarianMatcher, at_least_float32, build_matcher

CLASSES = 20


def predictions(queries: int, seed: int, images: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "pred_logits": 2 * torch.randn(images, queries, CLASSES + 1, generator=generator),
        "pred_boxes": random_boxes(images, queries, generator=generator),
    }


def random_boxes(*shape: int, generator: torch.Generator) -> Tensor:
    """cxcywh fractions [*shape, 4]."""
    centres, sizes = torch.rand(2, *shape, 2, generator=generator)
    return torch.cat([0.2 + 0.6 * centres, 0.05 + 0.3 * sizes], dim=-1)


def objects(count: int, seed: int) -> dict[str, Tensor]:
    """A target with distinct labels: equal ones would tie when only the class cost has a weight."""
    generator = torch.Generator().manual_seed(seed + 1000)
    labels = torch.randperm(CLASSES, generator=generator)[:count]
    return {"labels": labels, "boxes": random_boxes(count, generator=generator)}


def pair_cost(logits: list[float], box: list[float], label: int, target: list[float], weights: tuple) -> float:
    """The cost of one pair from the equations of the paper, without our code."""
    prob = math.exp(logits[label]) / sum(math.exp(x) for x in logits)
    l1 = sum(abs(a - b) for a, b in zip(box, target))
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = (
        (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2) for cx, cy, w, h in (box, target)
    )
    inter = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
    union = box[2] * box[3] + target[2] * target[3] - inter
    hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    giou = inter / union - (hull - union) / hull
    return weights[0] * -prob + weights[1] * l1 + weights[2] * -giou


def best_by_trying_all(outputs: dict[str, Tensor], target: dict[str, Tensor], weights: tuple) -> set[tuple[int, int]]:
    """The cheapest set of (query, object) pairs of the first image, found by trying every assignment."""
    logits, boxes = outputs["pred_logits"][0].tolist(), outputs["pred_boxes"][0].tolist()
    labels, target_boxes = target["labels"].tolist(), target["boxes"].tolist()
    cost = [[pair_cost(x, b, c, t, weights) for c, t in zip(labels, target_boxes)] for x, b in zip(logits, boxes)]
    few = min(len(boxes), len(labels))
    candidates = (
        tuple(zip(queries, chosen))
        for queries in itertools.permutations(range(len(boxes)), few)
        for chosen in itertools.combinations(range(len(labels)), few)
    )
    return set(min(candidates, key=lambda pairs: sum(cost[q][t] for q, t in pairs)))


@pytest.mark.parametrize("weights", [(1, 5, 2), (1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=str)
@pytest.mark.parametrize(("queries", "count"), [(5, 3), (4, 4), (3, 5), (4, 1)])
def test_the_assignment_is_the_cheapest_of_all(queries, count, weights):
    for seed in range(5):
        outputs, target = predictions(queries, seed), objects(count, seed)
        ((src, tgt),) = HungarianMatcher(*weights)(outputs, [target])
        assert len(src) == len(tgt) == min(queries, count)
        assert set(zip(src.tolist(), tgt.tolist())) == best_by_trying_all(outputs, target, weights)


def test_the_costs_of_a_batch_are_the_plain_ones_of_its_images():
    outputs, truth = predictions(7, seed=2, images=4), [objects(count, 0) for count in (2, 0, 9, 5)]
    matcher = HungarianMatcher(1, 5, 2)
    pairs, together = matcher(outputs, truth), matcher._cost(outputs, truth)  # [B, T, Q]
    for image, target in enumerate(truth):
        plain = matcher.plain_cost(outputs["pred_logits"][image], outputs["pred_boxes"][image], target)  # [Q, n]
        assert plain.shape == (7, len(target["labels"]))
        torch.testing.assert_close(together[image, : len(target["labels"])].T, plain, rtol=1e-5, atol=1e-5)
        assert [list(found) for found in linear_sum_assignment(plain)] == [found.tolist() for found in pairs[image]]


def test_the_class_cost_is_minus_the_probability_not_its_logarithm():
    # The probabilities of class 0 and 1 are .6 and .3 for the first query, .3 and .05 for the second. In order they sum
    # to .65, swapped to .60. Their products are .03 and .09, so the log-likelihood would choose the swapped pairs.
    prob = torch.tensor([[[0.6, 0.3, 0.1], [0.3, 0.05, 0.65]]])
    outputs = {"pred_logits": prob.log(), "pred_boxes": torch.full((1, 2, 4), 0.5)}
    target = {"labels": torch.tensor([0, 1]), "boxes": torch.full((2, 4), 0.5)}
    ((src, tgt),) = HungarianMatcher(1, 5, 2)(outputs, [target])
    assert (src.tolist(), tgt.tolist()) == ([0, 1], [0, 1])


def test_no_object_is_part_of_the_softmax():
    # The first query has the higher logit for class 0 but the lower probability: "no object" has most of it.
    outputs = {"pred_logits": torch.tensor([[[2.0, 0.0, 9.0], [1.0, 0.0, 0.0]]]), "pred_boxes": torch.rand(1, 2, 4)}
    ((src, _),) = HungarianMatcher(1, 0, 0)(outputs, [{"labels": torch.tensor([0]), "boxes": torch.rand(1, 4)}])
    assert src.tolist() == [1]


def test_images_are_matched_independently():
    outputs = predictions(6, seed=0, images=4)
    truth = [objects(count, seed) for seed, count in enumerate([2, 0, 8, 5])]
    together = HungarianMatcher(1, 5, 2)(outputs, truth)
    for image, target in enumerate(truth):
        alone = HungarianMatcher(1, 5, 2)({name: value[image : image + 1] for name, value in outputs.items()}, [target])
        assert torch.equal(torch.stack(together[image]), torch.stack(alone[0]))


def test_pairs_are_int64_on_the_cpu_in_the_order_of_the_queries():
    ((src, tgt),) = HungarianMatcher(1, 5, 2)(predictions(9, seed=3), [objects(6, seed=3)])
    assert src.dtype == tgt.dtype == torch.int64
    assert src.device.type == tgt.device.type == "cpu"
    assert src.tolist() == sorted(src.tolist())
    assert sorted(tgt.tolist()) == list(range(6))


def test_no_objects_anywhere_give_empty_pairs():
    for src, tgt in HungarianMatcher()(predictions(5, seed=0, images=2), [objects(0, 0), objects(0, 1)]):
        assert len(src) == len(tgt) == 0
        assert src.dtype == tgt.dtype == torch.int64


def test_predictions_that_require_gradients_are_matched_without_them():
    outputs = {name: value.requires_grad_() for name, value in predictions(5, seed=0).items()}
    ((src, tgt),) = HungarianMatcher()(outputs, [objects(3, 0)])
    assert len(src) == 3 and not src.requires_grad and not tgt.requires_grad


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["pred_logits", "pred_boxes", "target"])
def test_values_that_are_not_finite_are_an_error_with_the_image(place, value):
    outputs, truth = predictions(5, seed=0, images=2), [objects(3, 0), objects(3, 1)]
    spoiled = truth[1]["boxes"] if place == "target" else outputs[place][1]
    spoiled[0, 0] = value
    with pytest.raises(FloatingPointError, match="image 1 of the batch"):
        HungarianMatcher(1, 5, 2)(outputs, truth)


def test_an_image_without_objects_does_not_hide_another_ones_nan():
    outputs, truth = predictions(5, seed=0, images=2), [objects(0, 0), objects(3, 1)]
    outputs["pred_boxes"][1, 2] = float("nan")
    with pytest.raises(FloatingPointError, match="image 1 of the batch"):
        HungarianMatcher(1, 5, 2)(outputs, truth)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_raised_before_the_costs(dtype):
    for seed in range(10):
        halves = {name: value.to(dtype) for name, value in predictions(20, seed).items()}
        raised = {name: value.float() for name, value in halves.items()}
        found, expected = (HungarianMatcher(1, 5, 2)(o, [objects(15, seed)])[0] for o in (halves, raised))
        assert torch.equal(torch.stack(found), torch.stack(expected))


def test_float64_is_not_lowered():
    # The second query is closer by 1e-10, which float32 cannot represent; a tie would go to the first.
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]]], dtype=torch.float64)
    target = {"labels": torch.tensor([0]), "boxes": boxes[0, :1] + 0.1}
    boxes[0, 1] += 1e-10
    outputs = {"pred_logits": torch.zeros(1, 2, 3, dtype=torch.float64), "pred_boxes": boxes}
    ((src, _),) = HungarianMatcher(0, 1, 0)(outputs, [target])
    assert src.tolist() == [1]
    ((src, _),) = HungarianMatcher(0, 1, 0)({name: value.float() for name, value in outputs.items()}, [target])
    assert src.tolist() == [0]


@pytest.mark.parametrize(
    ("dtype", "raised"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_at_least_float32(dtype, raised):
    assert at_least_float32(torch.ones(2, dtype=dtype)).dtype == raised


def test_all_weights_zero_is_refused():
    with pytest.raises(ValueError, match="all matching costs are 0"):
        HungarianMatcher(0, 0, 0)


def test_the_weights_of_the_command_line():
    matcher = build_matcher(argparse.Namespace(set_cost_class=3, set_cost_bbox=4, set_cost_giou=6))
    assert (matcher.cost_class, matcher.cost_bbox, matcher.cost_giou) == (3, 4, 6)
