"""`--ema`: what the average follows, and what a run, a checkpoint and those that load it do with it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

import main
from models.load import load_detector
from tests.helpers.processes import run_together
from tests.helpers.runs import flags, signal_at
from tools.reliability.tiny_run import differences
from tools.ship import ship, stripped
from training.average import WeightAverage
from util.checkpoint import load_checkpoint, save_checkpoint

RUN = ["--batch_size", "2", "--dropout", "0.1", "--epochs", "2", "--lr", "1e-3"]  # four steps an epoch


class Ramp(torch.nn.Module):
    """Its weight is the number of steps taken, as is its buffer; another weight is frozen."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.frozen = torch.nn.Parameter(torch.full((2,), 7.0), requires_grad=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))


def follow(decay: float, steps: int) -> WeightAverage:
    """The average of a ramp after so many steps."""
    model = Ramp()
    average = WeightAverage(model, decay)
    for step in range(1, steps + 1):
        with torch.no_grad():
            model.weight.fill_(step)
            model.seen.fill_(step)
        average.update()
    return average


@pytest.mark.parametrize("steps", [50, 500, 5000])
def test_the_average_is_a_tenth_of_the_run_behind_whatever_its_length(steps):
    behind = steps - follow(0.9999, steps).model.weight[0].item()
    assert behind == pytest.approx(0.1 * (steps + 1))


def test_the_decay_limits_how_far_the_average_looks_back():
    average = follow(0.9, 2000)
    assert average.model.weight.tolist() == pytest.approx([2000 - 0.9 / 0.1] * 3)
    assert average.current_decay == 0.9


def test_what_does_not_train_is_taken_as_it_is():
    average = follow(0.99, 20)
    assert average.model.seen == 20 and average.model.frozen.tolist() == [7.0, 7.0]
    assert not average.model.training


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)


def train(data: Path, out: Path, *more: str) -> int:
    return main.run(flags(data, *RUN, "--output_dir", str(out), *more))


@pytest.fixture(scope="module")
def averaged(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs in one go."""
    out = tmp_path_factory.mktemp("averaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.validation.write_evaluation", lambda *args, **more: None)
        assert train(shapes, out, "--ema", "0.99") == 0
    return out


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("batch", [3, 4 + 2, 4 + 3 + 2])
def test_a_stop_goes_on_to_the_bit(shapes, averaged, tmp_path, monkeypatch, batch):
    """Batches 1 to 4 are epoch 0, 5 to 7 its evaluation, then epoch 1."""
    with monkeypatch.context() as patch:
        signal_at(patch, batch, signal.SIGTERM)
        assert train(shapes, tmp_path, "--ema", "0.99") == 0
    assert train(shapes, tmp_path, "--resume", "auto") == 0  # the decay follows the checkpoint
    assert differences(tmp_path, averaged) == []


def test_the_weights_themselves_are_those_of_a_run_without_an_average(shapes, averaged, tmp_path):
    assert train(shapes, tmp_path) == 0
    with_average, without = (load_checkpoint(folder / "checkpoint.pth") for folder in (averaged, tmp_path))
    assert equal(with_average["model"], without["model"]) and not equal(with_average["model_ema"], without["model"])
    assert with_average["model_ema"].keys() == without["model"].keys() and with_average["ema_steps"] == 8
    assert "model_ema" not in without


def results(shapes: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, str]:
    """(the losses, all lines) of an evaluation."""
    capsys.readouterr()
    assert main.run(flags(shapes, "--batch_size", "2", "--eval", "--resume", str(checkpoint), *more)) == 0
    said = capsys.readouterr().out
    return [line for line in said.splitlines() if "Test:" in line and "loss:" in line][-1].split("loss:")[1], said


def test_evaluations_are_of_the_average_unless_the_user_picks_the_weights(shapes, averaged, tmp_path, capsys):
    checkpoint = averaged / "checkpoint.pth"
    last = json.loads((averaged / "log.txt").read_text().splitlines()[-1])
    of_average, said = results(shapes, checkpoint, capsys)
    assert (
        float(of_average.split("(")[1].split(")")[0]) == pytest.approx(last["test_loss"], abs=2e-4)
        and "moving average of a run" in said
    )
    of_weights, said = results(shapes, checkpoint, capsys, "--raw_weights")
    assert of_weights != of_average and "moving average" not in said
    saved = load_checkpoint(checkpoint)
    save_checkpoint(
        tmp_path / "plain.pth", {name: saved[name] for name in saved if name not in ("model_ema", "ema_steps")}
    )
    assert results(shapes, tmp_path / "plain.pth", capsys)[0] == of_weights


def test_an_evaluation_while_training_says_what_it_evaluates(shapes, tmp_path, capsys):
    assert train(shapes, tmp_path, "--ema", "0.99", "--epochs", "1") == 0
    said = capsys.readouterr().out
    assert "evaluating the moving average of the weights (--ema; its decay is 0.357143 at step 4)" in said  # 5 / 14


def test_those_that_detect_use_the_average(averaged):
    checkpoint = load_checkpoint(averaged / "checkpoint.pth")
    assert equal(load_detector(checkpoint, "cpu").model.state_dict(), checkpoint["model_ema"])
    assert equal(stripped(checkpoint)["model"], checkpoint["model_ema"])
    assert not stripped(checkpoint).keys() & {"model_ema", "ema_steps"}


def test_a_file_of_the_weights_themselves_can_be_made(averaged, tmp_path):
    ship(averaged / "checkpoint.pth", tmp_path / "raw.pth", raw_weights=True)
    raw = load_checkpoint(tmp_path / "raw.pth")
    assert equal(load_detector(raw, "cpu").model.state_dict(), load_checkpoint(averaged / "checkpoint.pth")["model"])


def test_a_new_run_starts_from_the_average(shapes, averaged, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        "training.run.Training.fit", lambda training: started.append(training.model.state_dict()) or None
    )
    checkpoint = load_checkpoint(averaged / "checkpoint.pth")
    for more, name in (([], "model_ema"), (["--raw_weights"], "model")):
        out = tmp_path / name
        assert train(shapes, out, "--init_from", str(averaged / "checkpoint.pth"), *more) == 0
        assert equal(started.pop(), checkpoint[name])


def test_an_average_can_begin_and_end_with_a_resumed_run(shapes, averaged, tmp_path, capsys):
    assert train(shapes, tmp_path / "a", "--epochs", "1") == 0
    assert train(shapes, tmp_path / "a", "--resume", "auto", "--ema", "0.99") == 0
    assert "has no moving average of the weights: it begins with the weights" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "a" / "checkpoint.pth")["ema_steps"] == 4
    assert train(shapes, tmp_path / "a", "--resume", "auto", "--ema", "0", "--epochs", "3") == 0
    assert "--ema 0 (was 0.99)" in capsys.readouterr().out
    assert "model_ema" not in load_checkpoint(tmp_path / "a" / "checkpoint.pth")


@pytest.mark.parametrize("use", ["--eval --resume", "--resume", "--init_from"])
def test_a_damaged_average_is_one_sentence(shapes, averaged, tmp_path, capsys, use):
    saved = load_checkpoint(averaged / "checkpoint.pth")
    name = "class_embed.bias"
    damages = {
        "is not a dictionary of names and tensors": [1],
        "differs from `model` in the shape of 1 entries (class_embed.bias)": saved["model_ema"]
        | {name: torch.zeros(2)},
        "contains non-finite values": saved["model_ema"] | {name: saved["model_ema"][name] * torch.nan},
    }
    del (missing := dict(saved["model_ema"]))[name]
    damages["in the shape of 1 entries (class_embed.bias): the file is damaged; pass --raw_weights"] = missing
    used = damages.items() if use == "--resume" else [list(damages.items())[1]]
    for sentence, average in used:
        torch.save(saved | {"model_ema": average}, tmp_path / "damaged.pth")
        more = ["--epochs", "3", *use.split(), str(tmp_path / "damaged.pth")]
        assert main.run(flags(shapes, *RUN, *more, "--output_dir", str(tmp_path / "out"))) == 1
        error = capsys.readouterr().err
        assert sentence in error and "damaged.pth" in error and error.count("\n") == 1


def test_an_evaluation_can_do_without_a_damaged_average(shapes, averaged, tmp_path, capsys):
    saved = load_checkpoint(averaged / "checkpoint.pth")
    damaged = saved["model_ema"] | {"class_embed.bias": torch.zeros(2)}
    torch.save(saved | {"model_ema": damaged}, tmp_path / "damaged.pth")
    results(shapes, tmp_path / "damaged.pth", capsys, "--raw_weights")


def test_all_processes_have_the_same_average(shapes, tmp_path, monkeypatch):
    """With batch norm, whose statistics differ between the processes until they are shared."""
    more = ["--ema", "0.9", "--backbone_norm", "bn", "--epochs", "1", "--output_dir", str(tmp_path / "run")]
    ((first, second),) = run_together(2, [flags(shapes, *RUN, *more)], tmp_path / "work", note_averages)
    assert (first[0], second[0]) == (0, 0), first[1] + second[1]
    notes = [[line for line in output.splitlines() if line.startswith("average ")] for _, output in (first, second)]
    assert notes[0] == notes[1] and len(notes[0]) == 1


def note_averages() -> None:
    """Print the hash of the model that is evaluated."""
    import training.validation

    evaluate = training.validation.evaluate

    def noting(model, *rest, **named):
        values = [value.double().sum().item() for value in model.state_dict().values()]
        print("average", values)
        return evaluate(model, *rest, **named)

    training.validation.evaluate = noting


def test_a_decay_of_one_or_more_is_refused(shapes, tmp_path, capsys):
    assert train(shapes, tmp_path / "out", "--ema", "1") == 1
    assert "--ema must be in [0, 1), got 1" in capsys.readouterr().err
