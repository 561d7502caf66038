"""Going on: to the bit after a whole epoch and inside one, settings that follow or are named, what is refused."""

from __future__ import annotations

import argparse
import json
import lzma
import signal
from pathlib import Path

import pytest
import torch

import main
from tests.helpers.runs import flags, signal_at
from training.run_folder import RunFolder
from training.state import Position, TrainingState, check_same_position
from util.checkpoint import load_checkpoint, save_checkpoint
from util.rng import get_rng_state

STEPS = 4  # eight images, two a step


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations without their files and pictures, which take longer than the trainings here."""
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)


def train(data: Path, out: Path, *more: str) -> int:
    """A tiny training with dropout and augmentation, from nothing or, with --resume in `more`, from a checkpoint."""
    run = ["--batch_size", "2", "--dropout", "0.1", "--train_sizes", "48", "64", "--epochs", "2"]
    return main.run(flags(data, *run, "--output_dir", str(out), *more))


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.txt").read_text().splitlines()]


def assert_same(one: object, other: object, where: str = "") -> None:
    """Equal to the bit, all the way down."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        assert one == other, where


def assert_same_run(one: Path, other: Path) -> None:
    """The same weights, optimizer, schedule, generators, best score and log."""
    first, second = (load_checkpoint(folder / "checkpoint.pth") for folder in (one, other))
    states = ("model", "optimizer", "lr_scheduler", "epoch", "step", "best_score", "progress", "rng")
    for name in (*states, "record", "thresholds"):
        assert_same(first[name], second[name], name)
    assert log_of(one) == log_of(other)


@pytest.fixture(scope="module")
def undisturbed(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs in one go."""
    out = tmp_path_factory.mktemp("undisturbed")
    assert train(shapes, out) == 0
    return out


@pytest.mark.parametrize("more", [[], ["--num_workers", "2"]], ids=["0 workers", "2 workers"])
def test_one_and_one_epoch_are_two(shapes, undisturbed, tmp_path, more):
    assert train(shapes, tmp_path, "--epochs", "1", *more) == 0
    assert train(shapes, tmp_path, "--resume", "auto", *more) == 0
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize("batch", [1, 3, STEPS, STEPS + 2, STEPS + 3 + 2])
def test_a_stop_anywhere_goes_on_to_the_bit(shapes, undisturbed, tmp_path, monkeypatch, batch):
    """Batches 1 to 4 are epoch 0, 5 to 7 its evaluation (three batches of five images), then epoch 1."""
    with monkeypatch.context() as patch:
        signal_at(patch, batch, signal.SIGTERM)
        assert train(shapes, tmp_path) == 0
    stopped = load_checkpoint(tmp_path / "checkpoint.pth")
    assert stopped["epoch"] == (0 if batch > STEPS + 3 else -1)  # the last finished epoch, as published
    assert stopped["step"] == {1: 1, 3: 3, STEPS: 4, STEPS + 2: 4, STEPS + 5: 6}[batch]
    assert train(shapes, tmp_path, "--resume", "auto") == 0
    assert_same_run(tmp_path, undisturbed)


def test_a_run_killed_before_a_checkpoint_that_waits_goes_on_to_the_bit(shapes, tmp_path, monkeypatch):
    four = ["--epochs", "4", "--eval_every", "2"]
    monkeypatch.setattr(RunFolder, "save_is_due", lambda folder: False)
    saved, save, log = [], RunFolder.save, RunFolder.log

    def noted(folder, state, *names):
        saved.append(state["epoch"])
        return save(folder, state, *names)

    def killed(folder, record):
        log(folder, record)
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save", noted)
    assert train(shapes, tmp_path / "whole", *four) == 0
    assert saved == [0, 1, 2, 3]  # before and after each of the two evaluations
    monkeypatch.setattr(RunFolder, "log", killed)
    assert train(shapes, tmp_path / "halves", *four) != 0
    assert load_checkpoint(tmp_path / "halves" / "checkpoint.pth")["epoch"] == 1
    monkeypatch.setattr(RunFolder, "log", log)
    assert train(shapes, tmp_path / "halves", *four, "--resume", "auto") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "halves")


def test_a_schedule_by_steps_goes_on_to_the_bit(shapes, tmp_path, monkeypatch):
    schedule = ["--lr_schedule", "cosine", "--warmup_steps", "3"]
    assert train(shapes, tmp_path / "whole", *schedule) == 0
    with monkeypatch.context() as patch:
        signal_at(patch, 2, signal.SIGINT)
        assert train(shapes, tmp_path / "halves", *schedule) == 0
    assert train(shapes, tmp_path / "halves", *schedule, "--resume", "auto") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "halves")


def test_sigusr1_saves_and_changes_nothing(shapes, undisturbed, tmp_path, monkeypatch, capsys):
    saved = []
    save = RunFolder.save
    monkeypatch.setattr(RunFolder, "save", lambda *args: saved.append(args[1]["progress"]) or save(*args))
    signal_at(monkeypatch, 2, signal.SIGUSR1)
    assert train(shapes, tmp_path) == 0
    at = [progress and (progress["epoch"], progress["step"]) for progress in saved]
    assert at == [(0, 2), (0, STEPS), None, (1, STEPS), None]  # before and after each evaluation too
    assert "saved epoch 0, step 2 of 4" in capsys.readouterr().out
    assert_same_run(tmp_path, undisturbed)


def test_a_stop_says_how_to_go_on(shapes, tmp_path, monkeypatch, capsys):
    signal_at(monkeypatch, 2, signal.SIGTERM)
    assert train(shapes, tmp_path) == 0
    said = capsys.readouterr().out
    assert f"saved epoch 0, step 2 of 4 to {tmp_path}/checkpoint.pth" in said and "--resume auto" in said


def test_a_stop_without_output_dir_says_that_nothing_is_saved(shapes, monkeypatch, capsys):
    signal_at(monkeypatch, 2, signal.SIGTERM)
    assert main.run(flags(shapes, "--epochs", "2")) == 0
    assert "nothing is saved" in capsys.readouterr().out


def test_auto_without_a_checkpoint_is_a_fresh_start(shapes, undisturbed, tmp_path, capsys):
    assert train(shapes, tmp_path, "--resume", "auto") == 0
    assert "starting fresh" in capsys.readouterr().out
    assert_same_run(tmp_path, undisturbed)


def test_the_line_of_the_log_that_was_cut_off_comes_back(shapes, undisturbed, tmp_path):
    assert train(shapes, tmp_path, "--epochs", "1") == 0
    (tmp_path / "log.txt").write_text('{"train_lr": 0.00')
    assert train(shapes, tmp_path, "--resume", "auto") == 0
    assert_same_run(tmp_path, undisturbed)


def test_lines_of_epochs_to_be_trained_again_go(shapes, undisturbed, tmp_path):
    assert train(shapes, tmp_path, "--epochs", "1") == 0
    with (tmp_path / "log.txt").open("a") as file:
        file.write('{"epoch": 1, "train_loss": 1}\n')
    assert train(shapes, tmp_path, "--resume", "auto") == 0
    assert_same_run(tmp_path, undisturbed)


def test_checkpoint_carries_what_the_published_code_ignores(undisturbed):
    checkpoint = torch.load(undisturbed / "checkpoint.pth", weights_only=True)
    assert {"step", "progress", "rng", "record", "best_score", "categories", "world_size", "data", "versions"} <= set(
        checkpoint
    )
    assert checkpoint["step"] == 2 * STEPS and checkpoint["progress"] is None
    assert len(checkpoint["rng"]) == 1 and checkpoint["versions"]["torch"] == torch.__version__


def test_another_batch_size_inside_an_epoch_is_named_and_begins_the_epoch_anew(shapes, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        signal_at(patch, 2, signal.SIGTERM)
        assert train(shapes, tmp_path) == 0
    assert train(shapes, tmp_path, "--resume", "auto", "--batch_size", "4", "--epochs", "1") == 0
    said = capsys.readouterr().out
    assert "--batch_size is 4, it was 2" in said and "from its beginning" in said
    assert load_checkpoint(tmp_path / "checkpoint.pth")["step"] == 2  # of two new steps


def test_other_data_are_named(shapes, undisturbed, tmp_path, capsys):
    annotations = json.loads((shapes / "annotations" / "instances_train2017.json").read_text())
    annotations["annotations"].pop()
    (tmp_path / "fewer.json").write_text(json.dumps(annotations))
    more = ["--resume", str(undisturbed / "checkpoint.pth"), "--train_ann", str(tmp_path / "fewer.json")]
    assert train(shapes, tmp_path / "out", *more, "--epochs", "3", "--max_steps", "9") == 0
    assert "the training data differ from the checkpoint's" in capsys.readouterr().out


def test_another_setting_is_named(shapes, undisturbed, tmp_path, capsys):
    more = ["--resume", str(undisturbed / "checkpoint.pth"), "--epochs", "3", "--dropout", "0.3", "--max_steps", "9"]
    assert train(shapes, tmp_path, *more) == 0
    assert "--dropout 0.3 (was 0.1)" in capsys.readouterr().out


def resumed_rates(shapes: Path, undisturbed: Path, out: Path, *more: str) -> list[float]:
    """Both learning rates with which a third epoch begins."""
    at_end = ["--resume", str(undisturbed / "checkpoint.pth"), "--epochs", "3", "--max_steps", "9"]
    seen = []
    step = torch.optim.AdamW.step

    def record(optimizer, *args):
        seen.append([group["lr"] for group in optimizer.param_groups])
        return step(optimizer, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", record)
        assert train(shapes, out, *at_end, *more) == 0
    return seen[0]


def test_rates_follow_the_checkpoint_unless_given(shapes, tmp_path, capsys):
    first = tmp_path / "first"
    assert train(shapes, first, "--lr", "3e-4", "--lr_backbone", "2e-5", "--lr_drop", "1") == 0  # two drops
    capsys.readouterr()
    assert resumed_rates(shapes, first, tmp_path / "a") == pytest.approx([3e-6, 2e-7])
    assert "checkpoint.pth: --lr 0.0003 --lr_backbone 2e-05" in capsys.readouterr().out
    assert resumed_rates(shapes, first, tmp_path / "b", "--lr", "1e-4") == pytest.approx([1e-6, 2e-7])
    assert (
        "settings differ from the checkpoint's: --lr 0.0001 (was 0.0003): results will differ"
        in capsys.readouterr().out
    )
    assert resumed_rates(shapes, first, tmp_path / "c", "--lr_drop", "2") == pytest.approx([3e-5, 2e-6])
    assert load_checkpoint(tmp_path / "b" / "checkpoint.pth")["args"]["lr"] == 1e-4


def test_another_schedule_goes_on_where_it_would_be(shapes, undisturbed, tmp_path):
    more = ["--lr_schedule", "cosine", "--max_steps", "16", "--epochs", "4"]
    rates = resumed_rates(shapes, undisturbed, tmp_path, *more)
    assert rates == pytest.approx([0.5e-4, 0.5e-5])  # 8 of 16 steps


def test_weight_decay_follows_the_command_line_where_given(shapes, undisturbed, tmp_path):
    more = ["--resume", str(undisturbed / "checkpoint.pth"), "--epochs", "3", "--max_steps", "9"]
    assert train(shapes, tmp_path, *more, "--weight_decay", "0.5") == 0
    groups = load_checkpoint(tmp_path / "checkpoint.pth")["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--epochs", "2"], "has finished epoch 1 and --epochs is 2: nothing is left to train"),
        (["--epochs", "3", "--max_steps", "8"], "has taken 8 steps and --max_steps is 8: nothing is left to train"),
    ],
)
def test_nothing_left_is_an_error(shapes, undisturbed, tmp_path, capsys, more, sentence):
    assert train(shapes, tmp_path / "out", "--resume", str(undisturbed / "checkpoint.pth"), *more) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_published_checkpoint_goes_on(shapes, undisturbed, tmp_path):
    """Its state ends with the epoch; rates and moments continue, its generators are not in it."""
    ours = load_checkpoint(undisturbed / "checkpoint.pth")
    published = {name: ours[name] for name in ("model", "optimizer", "lr_scheduler", "epoch")}
    torch.save(published | {"args": argparse.Namespace(lr=1e-4, lr_drop=200, epochs=2)}, tmp_path / "theirs.pth")
    assert train(shapes, tmp_path / "out", "--resume", str(tmp_path / "theirs.pth"), "--epochs", "3") == 0
    after = load_checkpoint(tmp_path / "out" / "checkpoint.pth")
    assert after["epoch"] == 2 and after["step"] == 3 * STEPS
    assert {int(state["step"]) for state in after["optimizer"]["state"].values()} == {3 * STEPS}


@pytest.mark.parametrize(
    "damage",
    [
        {"optimizer": 5},
        {"optimizer": {"state": {}, "param_groups": []}},
        {"lr_scheduler": None},
        {"epoch": "three"},
        {"progress": {"epoch": 2}},
        {"rng": [{"python": 1}]},
        {"args": {"lr": "fast"}},
    ],
    ids=str,
)
def test_a_broken_training_state_is_one_sentence(shapes, undisturbed, tmp_path, capsys, damage):
    save_checkpoint(tmp_path / "broken.pth", load_checkpoint(undisturbed / "checkpoint.pth") | damage)
    assert train(shapes, tmp_path / "out", "--resume", str(tmp_path / "broken.pth"), "--epochs", "3") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path / "broken.pth") in error
    assert not (tmp_path / "out").exists()


def test_another_number_of_processes_is_named_and_its_generators_are_left(tmp_path, capsys):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 200)
    checkpoint = {"optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict(), "epoch": 0, "step": 7}
    checkpoint |= {"best_ap": 0.5, "world_size": 2, "rng": [get_rng_state()] * 2, "progress": {"epoch": 1, "step": 3}}
    args = argparse.Namespace(resume="two.pth", device="cpu", epochs=2, max_steps=None, start_epoch=0)
    args.batch_size, args.seed = 2, 0
    training = TrainingState(args, torch.nn.Linear(1, 1), optimizer, schedule, steps_per_epoch=4, data="pictures")
    torch.manual_seed(5)
    training.load_state_dict(checkpoint)
    position = training.position
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert (position.epoch, position.step, position.steps_taken, position.best_score) == (1, 0, 4, 0.5)
    assert (
        "the number of processes is 1, it was 2: results will differ from an uninterrupted run"
        in capsys.readouterr().out
    )


def test_processes_at_different_places_are_refused(monkeypatch):
    check_same_position(Position(1, 2, 3), "auto")
    monkeypatch.setattr("training.state.all_gather", lambda place: [place, (0, 0, 0)])
    with pytest.raises(RuntimeError, match="process 0 is at epoch 1, step 2, but process 1 at epoch 0, step 0"):
        check_same_position(Position(1, 2, 3), "auto")


def test_a_checkpoint_written_before_the_state_had_one_owner_resumes(shapes, tmp_path):
    """The file was written by a stop after step 3 of 4 in epoch 1.

    The epoch's loss is the one that the code of then goes on to, without dropout, whose draws have changed since.
    """
    file = Path(__file__).parent / "files" / "epoch1_step3.pth.xz"
    (tmp_path / "checkpoint.pth").write_bytes(lzma.decompress(file.read_bytes()))
    before = load_checkpoint(tmp_path / "checkpoint.pth")
    earlier = ["--resume", "auto", "--output_dir", str(tmp_path), "--batch_size", "2", "--epochs", "2"]
    assert main.run(flags(shapes, *earlier, "--dropout", "0", "--lr_backbone", "0")) == 0
    after = load_checkpoint(tmp_path / "checkpoint.pth")
    assert (after["epoch"], after["step"], after["progress"]) == (1, 8, None)
    assert log_of(tmp_path)[-1]["train_loss"] == pytest.approx(15.744876, rel=1e-4)
    assert after["best_score"] == max(before["best_ap"], log_of(tmp_path)[-1]["test_coco_eval_bbox"][0])
