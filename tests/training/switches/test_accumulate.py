"""Optimizer steps from several batches: losses, gradients and meters are those of one large batch."""

from __future__ import annotations

import math
import signal
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import main
from datasets import build_dataset
from datasets.loader import build_data_loader, set_epoch
from engine import Monitor, Window, train_one_epoch
from models import build_model
from tests.helpers.processes import HANGS, start, wait
from tests.helpers.runs import flags, parse, signal_at
from tools.reliability.tiny_run import differences
from training.monitor import RunMonitor
from training.optim import build_optimizer
from util.checkpoint import load_checkpoint
from util.compute.accumulation import Parts, StepLoader
from util.nested_tensor import NestedTensor

CPU = torch.device("cpu")
MASKS = ("--masks", "--hidden_dim", "128", "--nheads", "8")


class Observed(Monitor):
    """Keeps the values of every step."""

    def __init__(self):
        self.values = []

    def observe(self, step, values, optimizer, meters):
        self.values.append(values)


def build(shapes: Path, *more: str):
    torch.manual_seed(0)
    args = parse(shapes, "--num_classes", "4", "--lr", "1e-3", "--lr_backbone", "1e-3", *more)
    model, criterion, _ = build_model(args)
    return model.double(), criterion.double(), build_optimizer(model, args), build_dataset("train", args)


def batches(dataset, size: int) -> list:
    """Eight images, `size` in each batch, in float64."""
    loader = build_data_loader(dataset, size, train=True)
    set_epoch(loader, 0)
    return [(NestedTensor(samples.tensors.double(), samples.mask), targets) for samples, targets in loader]


def train(shapes: Path, size: int, parts: int, *more: str, change=lambda batches: None):
    """One epoch, `parts` batches of `size` images a step: (values of each step, gradients of the last, averages)."""
    model, criterion, optimizer, dataset = build(shapes, *more)
    found = batches(dataset, size)
    change(found)
    monitor = Observed()
    loader = StepLoader(found, parts) if parts > 1 else found
    stats = train_one_epoch(model, criterion, loader, optimizer, CPU, 0, 0.1, monitor=monitor)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return monitor.values, gradients, stats


@pytest.mark.parametrize("more", [(), MASKS, ("--no_aux_loss",)], ids=["boxes", "masks", "without auxiliary losses"])
@pytest.mark.parametrize(("size", "parts"), [(2, 2), (1, 4)])
def test_the_parts_are_the_large_batch(shapes, size, parts, more):
    values, gradients, stats = train(shapes, size, parts, *more)
    large_values, large_gradients, large_stats = train(shapes, 4, 1, *more)
    assert len(values) == len(large_values) == 2 and list(values[0]) == list(large_values[0])
    for step, (one, other) in enumerate(zip(values, large_values)):
        assert one == pytest.approx(other, rel=1e-6), step  # float32 counts of errors round at 1e-7
    assert stats == pytest.approx(large_stats, rel=1e-6)
    assert gradients.keys() == large_gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in large_gradients.values())
    for name, gradient in large_gradients.items():  # some, as of attention's key biases, are zero but for rounding
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-6, atol=1e-12 * largest, msg=name)


def test_parts_with_other_numbers_of_objects_are_the_large_batch(shapes):
    """A mean of the parts' means would be another loss."""

    def empty_some(found):
        for index in (0, 1, 2, 4, 5):
            for _, targets in found:
                for target in targets:
                    if int(target["image_id"]) % 8 == index:
                        for name in ("boxes", "labels", "annotation_id"):
                            target[name] = target[name][:0]

    values, _, _ = train(shapes, 1, 4, change=empty_some)
    large, _, _ = train(shapes, 4, 1, change=empty_some)
    for one, other in zip(values, large):
        assert one == pytest.approx(other, rel=1e-6)


def test_mask_losses_cover_the_largest_masks_of_all_parts(shapes):
    """Batches padded alike, whose masks differ in size, as with --pad_multiple."""

    def cut(found):
        for _, targets in found:
            for target in targets:
                target["masks"] = target["masks"][:, : 64 - 8 * (int(target["image_id"]) % 3)]

    values, _, _ = train(shapes, 1, 4, *MASKS, change=cut)
    large, _, _ = train(shapes, 4, 1, *MASKS, change=cut)
    for one, other in zip(values, large):
        assert one == pytest.approx(other, rel=1e-6)


def test_an_incomplete_last_step_is_dropped(shapes):
    model, criterion, optimizer, dataset = build(shapes)
    loader = StepLoader(batches(dataset, 1), 3)
    assert len(loader) == 2
    train_one_epoch(model, criterion, loader, optimizer, CPU, 0)
    assert {int(state["step"]) for state in optimizer.state.values()} == {2}


def test_too_few_batches_for_one_step_are_refused(shapes):
    loader = build_data_loader(build(shapes)[3], 4, train=True)
    with pytest.raises(ValueError, match="an epoch has 2 batches .* --accumulate 3: pass --accumulate 2 or less"):
        StepLoader(loader, 3)


def test_a_window_and_an_epoch_start_at_a_step(shapes):
    dataset = build(shapes)[3]
    loader = StepLoader(build_data_loader(dataset, 1, train=True), 2)
    set_epoch(loader, 1)
    whole = [[int(target["image_id"]) for target in parts.targets] for parts in loader]
    set_epoch(loader, 1, 3)
    assert [[int(target["image_id"]) for target in parts.targets] for parts in loader] == whole[3:]
    assert len(whole) == len(loader) == 4


def test_gradients_are_exchanged_in_the_last_parts_turn_only():
    class Wrapped(torch.nn.Module):
        exchanged = True

        @contextmanager
        def no_sync(self):
            self.exchanged = False
            yield
            self.exchanged = True

    model = Wrapped()
    assert [(part, model.exchanged) for part in Parts("abc").in_turn(model)] == [
        ("a", False),
        ("b", False),
        ("c", True),
    ]


def test_images_of_a_step_are_counted(shapes):
    model, criterion, optimizer, dataset = build(shapes)
    seen = []
    monitor = Monitor()
    monitor.respond = lambda requested, step, meters: seen.append(meters.state_dict()["progress"]["images"])
    train_one_epoch(model, criterion, StepLoader(batches(dataset, 2), 2), optimizer, CPU, 0, monitor=monitor)
    assert seen == [4, 8]


@pytest.mark.parametrize("part", [0, 1])
def test_a_part_that_is_not_finite_stops_before_the_step_and_is_named(shapes, part):
    model, criterion, optimizer, dataset = build(shapes)
    found = batches(dataset, 2)
    samples, targets = found[2 + part]
    samples.tensors[1, 0, 5, 5] = math.nan
    before = []
    monitor = RunMonitor.__new__(RunMonitor)
    monitor.output_dir = ""
    monitor.requests = lambda: {}
    monitor.observe = lambda *_: before.extend(p.detach().clone() for p in model.parameters())
    monitor.respond = lambda *_: None
    images = [int(target["image_id"]) for target in targets]
    with pytest.raises(FloatingPointError) as error:
        train_one_epoch(model, criterion, StepLoader(found, 2), optimizer, CPU, 3, monitor=monitor)
    assert f"epoch 3, step 1, images [{images[0]}, {images[1]}]: image 1 of the batch" in str(error.value)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters()))


def test_all_images_of_a_step_are_named_without_diagnosis(shapes):
    model, criterion, optimizer, dataset = build(shapes)
    criterion.weight_dict = dict(criterion.weight_dict, loss_ce=math.nan)
    found = batches(dataset, 2)
    images = [int(target["image_id"]) for _, targets in found[:2] for target in targets]
    with pytest.raises(FloatingPointError) as error:
        train_one_epoch(model, criterion, StepLoader(found, 2), optimizer, CPU, 0, window=Window(stop=1))
    assert str(error.value).endswith(f"images {images}")


# --- Two processes ----------------------------------------------------------------------------------------------------


def one_of_two(rank: int, shapes: str, folder: str) -> None:
    """Two images a part and two parts a step; then four images a step. The processes have unequal numbers of boxes."""
    dist.init_process_group(
        "gloo", f"file://{folder}/meeting_point", rank=rank, world_size=2, timeout=timedelta(seconds=HANGS)
    )
    results = []
    for size, parts in ((2, 2), (4, 1)):
        model, criterion, optimizer, dataset = build(Path(shapes))
        loader = build_data_loader(dataset, size, train=True)
        found = [(NestedTensor(samples.tensors.double(), samples.mask), targets) for samples, targets in loader]
        wrapped = DistributedDataParallel(model)
        monitor = Observed()
        train_one_epoch(wrapped, criterion, StepLoader(found, parts), optimizer, CPU, 0, 0.1, monitor=monitor)
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append({"values": monitor.values, "gradient": gradient})
    torch.save(results, Path(folder, f"results_{rank}.pth"))
    dist.destroy_process_group()


def test_two_processes_with_parts_are_two_with_large_batches(shapes, tmp_path):
    assert wait(start(one_of_two, [(rank, str(shapes), str(tmp_path)) for rank in (0, 1)])) == [0, 0]
    results = [torch.load(tmp_path / f"results_{rank}.pth") for rank in (0, 1)]
    for parts, large in results:
        assert len(parts["values"]) == len(large["values"]) == 1
        assert parts["values"][0] == pytest.approx(large["values"][0], rel=1e-6)
        difference = (parts["gradient"] - large["gradient"]).abs()
        assert (difference <= (1e-6 * large["gradient"].abs()).clamp(min=1e-10)).all()
    assert torch.equal(results[0][0]["gradient"], results[1][0]["gradient"])


# --- Runs -------------------------------------------------------------------------------------------------------------

RUN = ["--batch_size", "1", "--accumulate", "2", "--dropout", "0.1", "--epochs", "2"]  # four steps an epoch


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without reports, which take longer than the trainings here."""
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)


def run(data: Path, out: Path, *more: str) -> int:
    return main.run(flags(data, *RUN, "--output_dir", str(out), *more))


@pytest.mark.parametrize("more", [(), ("--lr_schedule", "cosine", "--warmup_steps", "3")], ids=["step", "cosine"])
def test_a_stop_inside_an_epoch_goes_on_to_the_bit(shapes, tmp_path, monkeypatch, quick, more):
    assert run(shapes, tmp_path / "whole", *more) == 0
    with monkeypatch.context() as patch:
        signal_at(patch, 3, signal.SIGTERM)
        assert run(shapes, tmp_path / "halves", *more) == 0
    stopped = load_checkpoint(tmp_path / "halves" / "checkpoint.pth")
    assert stopped["step"] == stopped["progress"]["step"] == 3, "positions count optimizer steps"
    assert run(shapes, tmp_path / "halves", *more, "--resume", "auto") == 0
    assert differences(tmp_path / "halves", tmp_path / "whole") == []
    assert load_checkpoint(tmp_path / "whole" / "checkpoint.pth")["step"] == 8


def test_max_steps_counts_optimizer_steps(shapes, tmp_path, quick, capsys):
    assert run(shapes, tmp_path, "--max_steps", "3") == 0
    assert load_checkpoint(tmp_path / "checkpoint.pth")["step"] == 3
    assert "4 steps each, until step 3" in capsys.readouterr().out


def test_another_number_of_parts_trains_an_interrupted_epoch_again(shapes, tmp_path, monkeypatch, quick, capsys):
    with monkeypatch.context() as patch:
        signal_at(patch, 2, signal.SIGTERM)
        assert run(shapes, tmp_path) == 0
    assert run(shapes, tmp_path, "--accumulate", "4", "--resume", "auto") == 0
    said = capsys.readouterr()
    assert "--accumulate is 4, it was 2" in said.out + said.err
    assert "trained from its beginning" in said.out + said.err


def test_more_parts_than_batches_are_an_error_in_one_sentence(shapes, tmp_path, quick, capsys):
    assert run(shapes, tmp_path, "--accumulate", "9") == 1
    assert "error: an epoch has 8 batches on each process" in capsys.readouterr().err


def test_the_trial_and_the_advice_know_the_parts(shapes, tmp_path, monkeypatch, quick, capsys):
    told = {}
    monkeypatch.setattr("training.run.too_short_training", lambda steps, images, *_, **__: told.update(images=images))
    monkeypatch.setattr(
        "training.run.preflight", lambda *_, **options: told.update(options) or "a forecast\non two lines"
    )
    assert run(shapes, tmp_path, "--preflight", "--max_steps", "1", "--batch_size", "2") == 0
    assert told["images"] == 4 and told["accumulate"] == 2 and told["steps"] == 1
    assert "a forecast\non two lines\n" in capsys.readouterr().out
