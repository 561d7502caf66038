"""The set loss with invalid targets or predictions: an error in one process, NaN on all processes of a group."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine import train_one_epoch, weighted_sum
from models.criterion import SetCriterion
from models.matcher import HungarianMatcher
from tests.helpers.processes import HANGS, start, wait
from training.diagnosis.forensics import find_non_finite, report_non_finite
from util.dist import reduce_dict
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list

CLASSES, QUERIES = 3, 5
LOSSES = ["labels", "boxes", "cardinality"]
WEIGHTS = {f"{name}{suffix}": 1.0 for name in ("loss_ce", "loss_bbox", "loss_giou") for suffix in ("", "_0")}


def criterion(losses: list[str] = LOSSES) -> SetCriterion:
    return SetCriterion(CLASSES, HungarianMatcher(1, 5, 2), WEIGHTS, 0.1, losses)


class Toy(nn.Module):
    """Predictions of two layers for any images, from parameters of each layer and the mean of the images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.logits = nn.Parameter(torch.randn(2, QUERIES, CLASSES + 1))
        self.boxes = nn.Parameter(torch.randn(2, QUERIES, 4))

    def forward(self, samples: NestedTensor) -> dict:
        mean = samples.tensors.mean(dim=(1, 2, 3))[:, None, None]  # [B, 1, 1]
        layers = [
            {"pred_logits": logits + mean, "pred_boxes": (boxes + mean).sigmoid()}
            for logits, boxes in zip(self.logits, self.boxes)
        ]
        return layers[1] | {"aux_outputs": layers[:1]}


def batch(value: float = 0.0) -> tuple[NestedTensor, list[dict[str, Tensor]]]:
    """Two images filled with `value`; the first has three objects, the second none."""
    targets = [
        {"labels": torch.tensor([0, 2, 1]), "boxes": torch.full((3, 4), 0.4), "image_id": torch.tensor([8])},
        {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4), "image_id": torch.tensor([9])},
    ]
    return nested_tensor_from_tensor_list([torch.full((3, 4, 4), value)] * 2), targets


# --- Targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [CLASSES, CLASSES + 40, -1])
def test_a_label_beyond_the_classes_is_an_error_with_image_and_label(label):
    samples, targets = batch()
    targets.reverse()  # now image 1 has the objects
    targets[1] = targets[1] | {"labels": torch.tensor([0, label, 2])}
    with pytest.raises(ValueError, match=rf"image 1 of the batch .* label {label}, but the model has classes 0\.\.2"):
        criterion()(Toy()(samples), targets)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_target_box_that_is_not_finite_is_an_error_with_image_and_box(value):
    samples, targets = batch()
    boxes = targets[0]["boxes"].clone()
    boxes[2, 1] = value
    targets[0] = targets[0] | {"boxes": boxes}
    with pytest.raises(ValueError, match=rf"box 2 of image 0 of the batch is \[.*{value}"):
        criterion()(Toy()(samples), targets)


def test_targets_on_other_devices_are_not_checked(monkeypatch):
    samples, targets = batch()
    outputs = Toy()(samples)

    def fail(self: Tensor) -> bool:
        raise AssertionError("the host has waited for the device")

    # Simulate tensors on a device. A check of their values would call `bool()` on a tensor.
    monkeypatch.setattr(Tensor, "is_cpu", property(lambda self: False))
    monkeypatch.setattr(Tensor, "__bool__", fail)
    criterion()(outputs, targets)


# --- Predictions ------------------------------------------------------------------------------------------------------


def test_in_one_process_predictions_that_are_not_finite_are_an_error():
    samples, targets = batch(math.nan)
    with pytest.raises(FloatingPointError, match="image 0 of the batch"):
        criterion()(Toy()(samples), targets)


@pytest.fixture
def group(monkeypatch):
    """Simulate a second process without boxes; returns the list of numbers that this process contributes."""
    contributed: list[float] = []
    for module in ("models.matching_failures", "util.dist"):
        monkeypatch.setattr(f"{module}.is_dist_avail_and_initialized", lambda: True)
    monkeypatch.setattr("util.dist.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda count: contributed.append(count.item()))
    return contributed


@pytest.mark.parametrize("losses", [LOSSES, ["labels"], ["boxes"]], ids=str)
def test_among_processes_all_losses_become_nan_and_keep_their_names_and_gradients(group, losses):
    model = Toy()
    valid = criterion(losses)(model(batch()[0]), batch()[1])
    failed = criterion(losses)(model(batch(math.nan)[0]), batch()[1])
    assert list(failed) == list(valid) and all(value.isnan() for value in failed.values())
    assert {name: value.requires_grad for name, value in failed.items()} == {
        name: value.requires_grad for name, value in valid.items()
    }
    assert group[0] == 3 and math.isnan(group[1]), "the count of boxes is exchanged and carries the NaN"
    weighted_sum(failed, WEIGHTS).backward()
    used = [model.logits] if losses == ["labels"] else [model.boxes] if losses == ["boxes"] else model.parameters()
    assert all(parameter.grad is not None for parameter in used)  # DDP waits for each of them


def test_a_given_number_of_boxes_needs_no_communication(group):
    outputs, targets = Toy()(batch()[0]), batch()[1]
    counted, given = criterion()(outputs, targets), criterion()(outputs, targets, num_boxes=6.0)
    assert len(group) == 1, "only the first call communicated"
    torch.testing.assert_close(given["loss_bbox"], counted["loss_bbox"] * 1.5 / 6)
    with pytest.raises(FloatingPointError):
        criterion()(Toy()(batch(math.nan)[0]), targets, num_boxes=6.0)


# --- Two processes ----------------------------------------------------------------------------------------------------


def one_of_two(rank: int, folder: str) -> None:
    """Process 1 gets NaN in its only call of the criterion, then in its second training step."""
    dist.init_process_group(
        "gloo", f"file://{folder}/meeting_point", rank=rank, world_size=2, timeout=timedelta(seconds=HANGS)
    )
    model = DistributedDataParallel(Toy())
    facts: dict[str, object] = {}
    samples, targets = batch(math.nan if rank == 1 else 0.0)
    losses = criterion()(model(samples), targets)
    weighted_sum(losses, WEIGHTS).backward()
    facts["nan"] = sorted(name for name, value in losses.items() if value.isnan())
    facts["nan on average"] = sorted(name for name, value in reduce_dict(losses).items() if value.isnan())
    facts["names"] = sorted(losses)
    facts["report"] = report_non_finite(
        "the loss is nan", model, samples, targets, criterion(), epoch=4, step=6, output_dir=folder
    )

    if rank == 0:  # work of one process on its own, which must not involve DistributedDataParallel
        samples, targets = batch()
        weighted_sum(criterion()(model.module(samples), targets, num_boxes=3.0), WEIGHTS).backward()
        facts["alone"] = find_non_finite(model, samples, targets, criterion()).sentence  # with NaN gradients
    model.zero_grad()

    values = [0.0, math.nan if rank == 1 else 1.0, 2.0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        train_one_epoch(model, criterion(), [batch(v) for v in values], optimizer, torch.device("cpu"), 0, 0.1)
    except FloatingPointError as error:
        facts["error"] = str(error)
    facts["finite weights"] = all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    facts["sum of weights"] = sum(parameter.double().sum().item() for parameter in model.parameters())
    dist.barrier()  # both processes have run the same number of collectives
    Path(folder, f"facts_{rank}.json").write_text(json.dumps(facts))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(facts of rank 0, facts of rank 1, their folder)."""
    folder = tmp_path_factory.mktemp("pair")
    assert wait(start(one_of_two, [(rank, str(folder)) for rank in (0, 1)])) == [0, 0]
    return *(json.loads((folder / f"facts_{rank}.json").read_text()) for rank in (0, 1)), folder


def test_nan_on_one_process_reaches_the_averaged_losses_of_both(pair):
    assert pair[1]["nan"] == pair[1]["names"] == pair[0]["names"]
    assert pair[0]["nan"] == [f"loss_{kind}{suffix}" for kind in ("bbox", "giou") for suffix in ("", "_0")]
    assert pair[0]["nan on average"] == pair[1]["nan on average"] == pair[0]["names"]


def test_nan_on_one_process_stops_the_training_of_both_at_the_same_step(pair):
    for facts in pair[:2]:
        assert "epoch 0, step 1" in facts["error"]
        assert facts["finite weights"]
    assert pair[0]["sum of weights"] == pair[1]["sum of weights"]


def test_a_process_can_compute_gradients_without_waiting_for_the_other(pair):
    assert "but those recomputed for this batch are" in pair[0]["alone"]


def test_both_report_the_failing_process_and_only_that_one_saves_its_batch(pair):
    assert pair[0]["report"] == pair[1]["report"]
    assert (
        "process 1, images [8, 9]: image 0 of the batch" in pair[0]["report"] and "process 0" not in pair[0]["report"]
    )
    assert (pair[2] / "non_finite_rank1.pth").exists() and not (pair[2] / "non_finite_rank0.pth").exists()
