"""The first image, loss or gradient that is not finite; the batch saved and the message given."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import nn

import training.diagnosis.forensics
from tests.helpers.broken_models import INF, NAN, Explode, NanGradient, batch, detector, spoil
from training.diagnosis.forensics import find_non_finite, report_non_finite, save_batch
from util.checkpoint import load_checkpoint
from util.nested_tensor import NestedTensor

# --- Images, targets, losses, gradients -------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_an_image_that_is_not_finite_is_named_before_any_module(value):
    model, criterion = detector()
    samples, targets = batch()
    spoil(samples.tensors[1], value)
    finding = find_non_finite(model, samples, targets, criterion)
    assert (finding.kind, finding.name) == ("image", "image 1") and "(image_id 18)" in finding.sentence
    assert (
        find_non_finite(model, list(samples.tensors)).name == find_non_finite(model, samples.tensors).name == "image 1"
    )


def test_target_boxes_that_are_not_finite_are_named():
    model, criterion = detector()
    samples, targets = batch()
    targets[1] = targets[1] | {"boxes": torch.tensor([[0.5, NAN, 0.1, 0.1]])}
    finding = find_non_finite(model, samples, targets, criterion)
    assert (finding.kind, finding.name) == ("target", "image 1") and "1 NaN of 4 values" in finding.sentence


def test_an_image_comes_before_a_target():
    model, criterion = detector()
    samples, targets = batch()
    spoil(samples.tensors[1])
    spoil(targets[0]["boxes"])
    assert find_non_finite(model, samples, targets, criterion).kind == "image"


def test_a_value_that_no_output_depends_on_is_not_a_culprit():
    model, _ = detector()
    aside = nn.Sequential(Explode())
    model.add_module("aside", aside)
    model.register_forward_pre_hook(lambda *_: aside(torch.ones(1)) and None)
    assert find_non_finite(model, batch()[0]).kind == "nothing"


def test_a_model_that_fails_for_another_reason_is_not_explained_away():
    model, criterion = detector()
    model.input_proj = nn.Identity()
    with pytest.raises(RuntimeError):
        find_non_finite(model, *batch(), criterion)


def test_a_loss_that_is_not_finite_though_the_outputs_are_is_named():
    model, criterion = detector()
    criterion.weight_dict = dict(criterion.weight_dict, loss_giou_0=NAN)
    finding = find_non_finite(model, *batch(), criterion)
    assert (finding.kind, finding.name) == ("loss", "loss_giou_0")


def test_costs_that_are_not_finite_are_attributed_to_the_matching():
    model, criterion = detector()
    criterion.matcher.cost_bbox = INF  # times a distance
    finding = find_non_finite(model, *batch(), criterion)
    assert (finding.kind, finding.name) == ("loss", "matching") and "image 0 of the batch" in finding.sentence


def backward(model: nn.Module, criterion: nn.Module) -> None:
    samples, targets = batch()
    losses = criterion(model(samples), targets)
    sum(losses[name] * weight for name, weight in criterion.weight_dict.items()).backward()


def test_the_first_bad_gradient_is_named_with_its_good_neighbour():
    model, criterion = detector()
    layer = model.transformer.encoder.layers[0]
    layer.linear2 = nn.Sequential(NanGradient(), layer.linear2)
    backward(model, criterion)
    finding = find_non_finite(model, *batch(), criterion)
    assert (finding.kind, finding.name) == ("gradient", "transformer.encoder.layers.0.linear1.bias")
    assert (
        "closer to the loss, the gradient of transformer.encoder.layers.0.linear2.1.weight is finite"
        in finding.sentence
    )


def test_the_first_bad_gradient_is_named_after_clipping_made_all_nan():
    model, criterion = detector()
    model.input_proj = nn.Sequential(model.input_proj, NanGradient())
    backward(model, criterion)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    assert model.class_embed.bias.grad.isnan().all()
    assert find_non_finite(model, *batch(), criterion).name == "input_proj.0.bias"


def test_without_a_criterion_the_stored_gradients_are_checked():
    model, _ = detector()
    model.input_proj.bias.grad = torch.full_like(model.input_proj.bias, INF)
    finding = find_non_finite(model, batch()[0])
    assert (finding.kind, finding.name) == ("gradient", "input_proj.bias") and "16 infinite of 16" in finding.sentence


def test_gradients_whose_norm_overflows_are_named_by_the_largest():
    model, criterion = detector()
    backward(model, criterion)
    model.input_proj.bias.grad[3] = -1e30
    finding = find_non_finite(model, *batch(), criterion)
    assert (finding.kind, finding.name) == ("gradient", "input_proj.bias") and "reaches 1e+30" in finding.sentence


def test_a_gradient_that_came_from_another_process_is_not_blamed_on_this_batch():
    model, criterion = detector()
    backward(model, criterion)
    spoil(model.input_proj.bias.grad)
    finding = find_non_finite(model, *batch(), criterion)
    assert finding.kind == "nothing" and "but those recomputed for this batch are" in finding.sentence


def test_the_model_is_left_as_it_was():
    model, criterion = detector("--backbone_norm", "bn", "--dropout", "0.5")
    layer = model.transformer.encoder.layers[0]
    layer.linear2 = nn.Sequential(NanGradient(), layer.linear2)
    model.backbone[0].body.layer1.eval()
    backward(model, criterion)

    def state() -> list:
        tensors = [*model.state_dict().values(), *(p.grad for p in model.parameters()), torch.get_rng_state()]
        modes = [module.training for module in model.modules()]
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
        return [[None if t is None else t.clone() for t in tensors], modes, hooks, random.getstate()]

    before = state()
    assert find_non_finite(model, *batch(), criterion).kind == "gradient"
    after = state()
    assert after[1:] == before[1:]
    for a, b in zip(after[0], before[0]):
        assert a is b is None or torch.equal(a.nan_to_num(7), b.nan_to_num(7))


# --- The saved batch and the message ----------------------------------------------------------------------------------


def test_a_saved_batch_reproduces_the_failure(tmp_path):
    model, criterion = detector()
    spoil(model.bbox_embed.layers[1].weight)
    samples, targets = batch()
    path = tmp_path / "deep" / "batch.pth"
    save_batch(path, samples, targets, model=nn.DataParallel(model), epoch=3, step=8, message="why", rank=1)
    held = load_checkpoint(path)
    assert (held["epoch"], held["step"], held["message"], held["rank"]) == (3, 8, "why", 1)
    assert torch.equal(held["images"], samples.tensors) and torch.equal(held["mask"], samples.mask)
    assert [int(target["image_id"]) for target in held["targets"]] == [17, 18]
    fresh, _ = detector()
    fresh.load_state_dict(held["model"])
    again = find_non_finite(fresh, NestedTensor(held["images"], held["mask"]), held["targets"], criterion)
    assert again.name == "bbox_embed.layers.1 (Linear)"


def test_images_that_are_not_batched_yet_are_saved_too(tmp_path):
    model, _ = detector()
    images = [torch.rand(3, 8, 8), torch.rand(3, 6, 9)]
    save_batch(tmp_path / "b.pth", images, [], model=model, epoch=0, step=0, message="")
    assert load_checkpoint(tmp_path / "b.pth")["mask"].shape == (2, 8, 9)


def test_the_report_is_complete_and_leaves_checkpoints_alone(tmp_path):
    model, criterion = detector()
    spoil(model.class_embed.weight)
    (tmp_path / "checkpoint.pth").write_text("precious")
    text = report_non_finite("the loss is nan", model, *batch(), criterion, epoch=7, step=2, output_dir=tmp_path)
    for part in (
        "the loss is nan, in epoch 7, step 2, images [17, 18]: class_embed (Linear) is the first module",
        f"{tmp_path / 'non_finite_rank0.pth'}",
        "--lr",
        "--clip_max_norm",
    ):
        assert part in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pth", "non_finite_rank0.pth"]
    assert (tmp_path / "checkpoint.pth").read_text() == "precious"
    assert load_checkpoint(tmp_path / "non_finite_rank0.pth")["message"].startswith("the loss is nan, in epoch 7")


def test_without_an_output_folder_nothing_is_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, criterion = detector()
    text = report_non_finite("the loss is inf", model, *batch(), criterion, epoch=0, step=0)
    assert "everything was finite" in text and ".pth" not in text and list(tmp_path.iterdir()) == []


def test_a_failing_analysis_and_a_failing_disk_are_reported(tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of something")

    monkeypatch.setattr(training.diagnosis.forensics, "find_non_finite", fail)
    (tmp_path / "file").write_text("")
    model, criterion = detector()
    text = report_non_finite(
        "the loss is nan", model, *batch(), criterion, epoch=1, step=0, output_dir=tmp_path / "file"
    )
    assert "the loss is nan, in epoch 1" in text and "out of something" in text and "cannot be written" in text


@pytest.mark.parametrize(("others", "writes"), [("output", False), ("nothing", True)])
def test_only_processes_that_found_something_are_named_and_write(tmp_path, monkeypatch, others, writes):
    """On process 0 of 2, where everything is finite; the other process has a finding of kind `others`."""
    told: list[object] = []

    def gather(data: object) -> list[object]:
        told.append(data)
        return [data, (others, "images [5]: it was me") if len(told) == 1 else f"{tmp_path}/non_finite_rank1.pth"]

    monkeypatch.setattr(training.diagnosis.forensics, "all_gather", gather)
    model, criterion = detector()
    text = report_non_finite("the loss is nan", model, *batch(), criterion, epoch=1, step=0, output_dir=tmp_path)
    assert "process 1, images [5]: it was me" in text and "non_finite_rank1.pth" in text
    assert ("process 0, images [17, 18]" in text) == writes
    assert Path(tmp_path, "non_finite_rank0.pth").exists() == writes
