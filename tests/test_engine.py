"""The two loops: what they log, that they learn, and what they refuse."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from datasets import build_dataset, get_coco_api_from_dataset
from datasets.loader import build_data_loader
from engine import Monitor, Window, evaluate, train_one_epoch, train_step, weighted_sum
from models import build_model
from tests.helpers.runs import parse
from training.optim import build_lr_scheduler, build_optimizer
from util.nested_tensor import NestedTensor, collate_fn

CPU = torch.device("cpu")


@pytest.fixture
def parts(shapes: Path):
    torch.manual_seed(0)
    args = parse(shapes, "--num_classes", "4", "--lr", "1e-3", "--lr_backbone", "1e-3")
    model, criterion, postprocessors = build_model(args)
    dataset = build_dataset("train", args)
    loader = build_data_loader(dataset, 4, train=True)
    return args, model, criterion, postprocessors, loader, build_optimizer(model, args)


def test_training_lowers_the_loss(parts):
    _, model, criterion, _, loader, optimizer = parts
    losses = [train_one_epoch(model, criterion, loader, optimizer, CPU, epoch, 0.1)["loss"] for epoch in range(8)]
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("masks", ["", "--masks --hidden_dim 128 --nheads 8"])
def test_an_epoch_is_the_plain_step_for_each_batch_bit_for_bit(shapes: Path, masks: str):
    torch.manual_seed(0)
    flags = "--num_classes 4 --lr 1e-3 --lr_backbone 1e-3 --train_sizes 64 80 --max_size 80"
    args = parse(shapes, *flags.split(), *masks.split())
    model, criterion, _ = build_model(args)
    plain, monitor = copy.deepcopy(model), Recording()
    monitor.respond = lambda *_: None
    batches = [batch for _ in range(2) for batch in build_data_loader(build_dataset("train", args), 4, train=True)]
    assert any(samples.mask.any() for samples, _ in batches)  # some images are padded
    train_one_epoch(model, criterion, batches, build_optimizer(model, args), CPU, 0, 0.1, monitor=monitor)

    optimizer = build_optimizer(plain, args)
    losses = [train_step(plain, criterion, *batch, optimizer, 0.1) for batch in batches]
    for of_step, (_, values, _) in zip(losses, monitor.observed, strict=True):
        assert values["grad_norm"] > 0.1  # clipping does something
        assert {f"{name}_unscaled": value.item() for name, value in of_step.items()}.items() <= values.items()
    pairs = zip(model.state_dict().items(), plain.state_dict().values(), strict=True)
    assert [name for (name, a), b in pairs if not torch.equal(a, b)] == []


def test_stats_carry_the_published_names(parts):
    _, model, criterion, _, loader, optimizer = parts
    stats = train_one_epoch(model, criterion, loader, optimizer, CPU, 0, 0.1)
    published = {"lr", "class_error", "loss", "loss_ce", "loss_bbox", "loss_giou"}
    published |= {"loss_ce_0", "loss_bbox_0", "loss_giou_0"}
    unscaled = {"loss_ce", "loss_bbox", "loss_giou", "class_error", "cardinality_error"}
    unscaled |= {"loss_ce_0", "loss_bbox_0", "loss_giou_0", "cardinality_error_0"}
    assert set(stats) == published | {f"{name}_unscaled" for name in unscaled}


def test_scaled_losses_are_weighted_and_add_up(parts):
    _, model, criterion, _, loader, optimizer = parts
    stats = train_one_epoch(model, criterion, loader, optimizer, CPU, 0, 0.1)
    assert stats["loss_bbox"] == pytest.approx(5 * stats["loss_bbox_unscaled"])
    assert stats["loss_giou_0"] == pytest.approx(2 * stats["loss_giou_0_unscaled"])
    assert stats["loss"] == pytest.approx(sum(stats[name] for name in criterion.weight_dict))


def test_gradients_are_clipped_over_all_parameters(parts, monkeypatch):
    _, model, criterion, _, loader, optimizer = parts
    norms = []

    def record(*_, **__):
        gradients = [p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.cat(gradients).norm().item())

    monkeypatch.setattr(optimizer, "step", record)
    train_one_epoch(model, criterion, loader, optimizer, CPU, 0, 0.1)
    assert norms and all(norm == pytest.approx(0.1, rel=1e-3) for norm in norms)
    norms.clear()
    train_one_epoch(model, criterion, loader, optimizer, CPU, 0, 0)
    assert min(norms) > 0.2


def test_a_per_step_schedule_is_stepped_with_every_step(parts):
    args, model, criterion, _, loader, optimizer = parts
    args.lr_schedule, args.epochs = "cosine", 1
    scheduler, per_step = build_lr_scheduler(optimizer, args, len(loader))
    train_one_epoch(model, criterion, loader, optimizer, CPU, 0, 0.1, lr_scheduler=scheduler)
    assert per_step and optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_a_window_ends_the_epoch(parts):
    _, model, criterion, _, loader, optimizer = parts
    train_one_epoch(model, criterion, loader, optimizer, CPU, 0, window=Window(stop=1))
    assert {int(state["step"]) for state in optimizer.state.values()} == {1}


def test_a_loss_that_is_not_finite_stops_before_the_step(parts):
    _, model, criterion, _, loader, optimizer = parts
    criterion.weight_dict = dict(criterion.weight_dict, loss_ce=math.nan)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(FloatingPointError, match=r"epoch 7, step 0, images \[\d"):
        train_one_epoch(model, criterion, loader, optimizer, CPU, 7)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_a_gradient_that_is_not_finite_stops_before_the_step(parts):
    _, model, criterion, _, loader, optimizer = parts
    model.class_embed.weight.register_hook(lambda gradient: gradient * math.nan)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(FloatingPointError, match=r"norm nan, in epoch 7, step 0, images \[\d"):
        train_one_epoch(model, criterion, loader, optimizer, CPU, 7, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


class Recording(Monitor):
    """Notes what it observes; asks for a save after the first step and for a stop after the second."""

    def __init__(self, optimizer=None):
        self.optimizer, self.observed, self.responses = optimizer, [], []

    def requests(self):
        return {"save": float(not self.responses), "stop": float(len(self.responses) == 1)}

    def observe(self, step, values, optimizer, meters):
        self.observed.append((step, dict(values), meters.watched()))

    def respond(self, requested, step=None, meters=None):
        taken = {int(state["step"]) for state in self.optimizer.state.values()}
        self.responses.append((requested, step, taken, meters and meters.loss.count))


def test_the_monitor_observes_every_step_and_the_gradient_norm_is_not_a_result(parts):
    _, model, criterion, _, loader, optimizer = parts
    monitor = Recording(optimizer)
    stats = train_one_epoch(model, criterion, loader, optimizer, CPU, 0, monitor=monitor)
    steps, values, watched = zip(*monitor.observed)
    assert list(steps) == list(range(len(loader))) and "grad_norm" not in stats
    assert all(value["grad_norm"] > 0 for value in values)
    assert {"grad_norm", "time/images_per_second", "time/data_share", "memory/rss_mb"} <= watched[-1].keys()


def test_a_request_is_answered_after_its_step(parts):
    _, model, criterion, _, loader, optimizer = parts
    monitor = Recording(optimizer)
    train_one_epoch(model, criterion, loader, optimizer, CPU, 0, monitor=monitor)
    assert monitor.responses == [({"save"}, 1, {1}, 1), ({"stop"}, 2, {2}, 2)]


def test_a_window_continues_an_epoch_where_its_meters_were(parts):
    _, model, criterion, _, loader, optimizer = parts
    batches, monitor = list(loader), Recording(optimizer)
    saved = []
    monitor.respond = lambda requested, step, meters: saved.append(meters.state_dict())
    whole = train_one_epoch(model, criterion, batches, optimizer, CPU, 0, monitor=monitor)
    losses = [state["meters"]["loss"]["window"][-1] for state in saved]
    assert len(losses) == 2 and whole["loss"] == pytest.approx(sum(losses) / 2)
    monitor = Recording(optimizer)
    stats = train_one_epoch(
        model, criterion, batches[1:], optimizer, CPU, 0, window=Window(1, None, saved[0]), monitor=monitor
    )
    ((step, values, _),) = monitor.observed
    assert step == 1
    assert stats["loss"] == pytest.approx((saved[0]["meters"]["loss"]["total"] + values["loss"]) / 2)


def test_a_target_that_cannot_be_is_named_before_the_model_runs(parts):
    _, model, criterion, _, loader, optimizer = parts
    batches = list(loader)
    batches[0][1][2]["labels"][0] = 77
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    image, annotation = (int(batches[0][1][2][name][0]) for name in ("image_id", "annotation_id"))
    with pytest.raises(ValueError, match=f"annotation {annotation} of image {image} has label 77"):
        train_one_epoch(model, criterion, batches, optimizer, CPU, 0)


def test_a_batch_without_any_object_trains(parts):
    _, model, criterion, _, loader, optimizer = parts
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "image_id": torch.tensor([1])}
    batches = [(samples, [dict(empty) for _ in targets]) for samples, targets in loader]
    stats = train_one_epoch(model, criterion, batches, optimizer, CPU, 0, 0.1)
    assert math.isfinite(stats["loss"]) and stats["loss_bbox"] == 0 and stats["loss_ce"] > 0


def test_training_mode_in_training_and_eval_mode_in_evaluation(parts):
    args, model, criterion, postprocessors, loader, optimizer = parts
    modes = []
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    train_one_epoch(model, criterion, loader, optimizer, CPU, 0)
    dataset = build_dataset("val", args)
    base = get_coco_api_from_dataset(dataset)
    evaluate(model, criterion, postprocessors, build_data_loader(dataset, 4, train=False), base, CPU, "")
    assert modes == [True, True, False, False]


def test_evaluation_scores_the_truth_with_one(parts, shapes):
    args, _, criterion, postprocessors, _, _ = parts
    args.val_size = 32  # half of the stored size, in whose pixels the truth is given
    dataset = build_dataset("val", args)
    loader = build_data_loader(dataset, 2, train=False)  # five images: the last batch is short
    batches = [targets for _, targets in loader]

    class Oracle(torch.nn.Module):
        def forward(self, samples):
            targets = batches.pop(0)
            logits = torch.full((len(targets), 6, 5), -20.0)
            logits[..., -1] = 0  # no object
            boxes = torch.full((len(targets), 6, 4), 0.5)
            for i, target in enumerate(targets):
                for query, (label, box) in enumerate(zip(target["labels"], target["boxes"])):
                    logits[i, query, label], boxes[i, query] = 20, box
            return {"pred_logits": logits, "pred_boxes": boxes}

    base = get_coco_api_from_dataset(dataset)
    stats, evaluator = evaluate(Oracle(), criterion, postprocessors, loader, base, CPU, "")
    assert stats["coco_eval_bbox"][0] == pytest.approx(1)
    assert len(stats["coco_eval_bbox"]) == 12
    assert stats["class_error"] == 0 and stats["loss_bbox"] == pytest.approx(0, abs=1e-5)
    assert evaluator.coco_eval["bbox"].stats.tolist() == stats["coco_eval_bbox"]


def test_logs_are_not_optimised():
    losses = {"loss_ce": torch.tensor(2.0), "class_error": torch.tensor(70.0), "cardinality_error": torch.tensor(3.0)}
    assert weighted_sum(losses, {"loss_ce": 1, "loss_bbox": 5}) == 2


class Recorder(torch.nn.Module):
    """In the place of a postprocessor or criterion: remembers what it was given and hands it on."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module, self.calls = module, []

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)

    def forward(self, *given, **named):
        self.calls.append((given, named))
        return self.module(*given, **named)


def test_masks_are_cut_and_compared_by_the_sizes_of_image_batch_and_original(shapes: Path):
    """A batch padded beyond its largest image, of images that the model sees larger than they are."""
    flags = (
        "--masks --hidden_dim 128 --nheads 8 --num_classes 7 --dataset_file coco_panoptic --val_size 80 --max_size 80"
    )
    args = parse(shapes, *flags.split(), "--val_size", "80", "--max_size", "80")
    model, criterion, postprocessors = build_model(args)
    criterion, postprocessors = Recorder(criterion), {name: Recorder(part) for name, part in postprocessors.items()}
    loader = build_data_loader(build_dataset("val", args), 4, train=False)
    loader.collate_fn = padded_to_128
    base_ds = get_coco_api_from_dataset(loader.dataset)
    stats, _ = evaluate(model, criterion, postprocessors, loader, base_ds, CPU, "")
    assert {"coco_eval_masks", "PQ_all"} <= stats.keys()
    (_, _, originals, sizes, padded), _ = postprocessors["segm"].calls[0]
    assert originals.tolist() == [[64, 64]] * 4 and sizes.tolist() == [[80, 80]] * 4 and padded == (128, 128)
    (_, sizes, originals, padded), _ = postprocessors["panoptic"].calls[0]
    assert originals.tolist() == [[64, 64]] * 4 and sizes.tolist() == [[80, 80]] * 4 and padded == (128, 128)
    assert {named["padded_size"] for _, named in criterion.calls} == {(128, 128)}


def test_mask_losses_in_training_know_the_padding(shapes: Path):
    args = parse(shapes, *"--masks --hidden_dim 128 --nheads 8 --num_classes 4".split())
    model, criterion, _ = build_model(args)
    criterion = Recorder(criterion)
    loader = build_data_loader(build_dataset("train", args), 4, train=True)
    loader.collate_fn = padded_to_128
    train_one_epoch(model, criterion, loader, build_optimizer(model, args), CPU, 0, 0.1, window=Window(stop=1))
    assert [named for _, named in criterion.calls] == [{"padded_size": (128, 128)}]


def padded_to_128(batch):
    samples, targets = collate_fn(batch)
    room = [0, 128 - samples.tensors.shape[-1], 0, 128 - samples.tensors.shape[-2]]
    return NestedTensor(F.pad(samples.tensors, room), F.pad(samples.mask, room, value=True)), targets
