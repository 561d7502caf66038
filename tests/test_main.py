"""The command: a run from data to files, going on from a checkpoint, and refusals in one sentence."""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path

import pytest
import torch

import main
import training.run
import training.run_folder
from datasets.coco import CocoDetection
from tests.helpers.processes import torchrun
from tests.helpers.runs import drawing, flags, parse
from training.run_folder import RunFolder
from util.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of two epochs."""
    out = tmp_path_factory.mktemp("run") / "deep" / "out"
    with drawing():
        assert main.run(flags(shapes, "--output_dir", str(out), "--epochs", "2", "--checkpoint_every", "1")) == 0
    return out


def test_a_run_leaves_its_files(finished: Path):
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    expected = {"log.txt", "checkpoint.pth", "checkpoint0000.pth", "checkpoint0001.pth", "checkpoint_best.pth"}
    expected |= {f"eval/{name}.json" for name in ("per_class", "f1", "confusion", "detections", "errors", "run")}
    expected |= {f"eval/{name}.png" for name in ("per_class", "pr_curves", "f1", "confusion", "detections")}
    assert files == expected | {"eval/latest.pth", "eval/000.pth", "report.html"}


def test_log_lines_carry_the_published_keys(finished: Path):
    lines = [json.loads(line) for line in (finished / "log.txt").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    wanted = {"train_lr", "train_loss", "train_loss_ce", "train_loss_bbox_unscaled", "train_class_error"}
    wanted |= {"test_loss", "test_loss_giou_0_unscaled", "test_class_error", "test_coco_eval_bbox", "n_parameters"}
    assert wanted <= lines[0].keys()
    assert len(lines[0]["test_coco_eval_bbox"]) == 12


def test_checkpoint_holds_plain_data_under_the_published_keys(finished: Path):
    checkpoint = torch.load(finished / "checkpoint.pth", weights_only=True)
    assert {"model", "optimizer", "lr_scheduler", "epoch", "args"} <= checkpoint.keys()
    assert checkpoint["epoch"] == 1  # the last finished epoch, as published
    assert checkpoint["args"]["hidden_dim"] == 16
    assert [category["name"] for category in checkpoint["categories"]] == ["circle", "square", "triangle"]
    assert checkpoint["model"]["class_embed.weight"].shape == (5, 16)  # ids 0..3 and no object


def test_the_published_schedule_state_is_kept(finished: Path):
    state = load_checkpoint(finished / "checkpoint.pth")["lr_scheduler"]
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 200)
    scheduler.load_state_dict(state)
    assert scheduler.last_epoch == 2


def test_per_class_results_are_saved_with_the_batch_size(finished: Path):
    saved = json.loads((finished / "eval" / "per_class.json").read_text())
    assert saved["batch_size"] == 4 and saved["epoch"] == 1 and len(saved["stats"]) == 12
    assert [row["name"] for row in saved["per_class"]] == ["circle", "square", "triangle"]


def test_eval_repeats_the_numbers_of_the_run(finished: Path, shapes: Path, tmp_path: Path):
    evaluate = ["--eval", "--resume", str(finished / "checkpoint.pth"), "--output_dir", str(tmp_path)]
    assert main.run(flags(shapes, *evaluate)) == 0
    saved, first = (json.loads((f / "eval" / "per_class.json").read_text()) for f in (tmp_path, finished))
    assert saved["stats"] == first["stats"]
    assert (tmp_path / "eval.pth").exists() and not (tmp_path / "log.txt").exists()


def test_a_published_checkpoint_evaluates(finished: Path, shapes: Path, tmp_path: Path):
    ours = load_checkpoint(finished / "checkpoint.pth")
    published = {name: ours[name] for name in ("model", "optimizer", "lr_scheduler", "epoch")}
    torch.save(published | {"args": argparse.Namespace(lr=1e-4, output_dir=Path("out"))}, tmp_path / "theirs.pth")
    assert main.run(flags(shapes, "--eval", "--resume", str(tmp_path / "theirs.pth"))) == 0


def test_same_seed_same_numbers(finished: Path, shapes: Path, tmp_path: Path):
    assert main.run(flags(shapes, "--output_dir", str(tmp_path), "--epochs", "2", "--num_workers", "2")) == 0
    first, second = (load_checkpoint(folder / "checkpoint.pth")["model"] for folder in (finished, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_max_steps_ends_training_with_an_evaluation(shapes: Path, tmp_path: Path):
    assert main.run(flags(shapes, "--max_steps", "3", "--eval_every", "50", "--output_dir", str(tmp_path))) == 0
    lines = [json.loads(line) for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert "test_coco_eval_bbox" not in lines[0] and "test_coco_eval_bbox" in lines[1]
    optimizer = load_checkpoint(tmp_path / "checkpoint.pth")["optimizer"]
    assert {int(state["step"]) for state in optimizer["state"].values()} == {3}


def test_a_short_epoch_is_one_line(shapes, capsys):
    assert main.run(flags(shapes, "--epochs", "12", "--eval_every", "99")) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("start training"))
    epochs = lines[start + 1 : start + 13]
    assert [line.split("]")[0] for line in epochs] == [f"Epoch: [{epoch}" for epoch in range(12)]
    assert all("Averaged stats: lr: " in line for line in epochs)


def test_the_epoch_reaches_sampler_and_data(shapes: Path, monkeypatch: pytest.MonkeyPatch):
    seen, train = [], training.run.train_one_epoch

    def record(model, criterion, loader, *rest, **options):
        seen.append((loader.sampler.epoch, int(loader.dataset._epoch)))
        return train(model, criterion, loader, *rest, **options)

    monkeypatch.setattr(training.run, "train_one_epoch", record)
    main.main(parse(shapes, "--epochs", "3", "--start_epoch", "1", "--eval_every", "9"))
    assert seen == [(1, 1), (2, 2)]


def test_a_run_that_ends_after_some_steps_announces_those(shapes: Path, capsys: pytest.CaptureFixture):
    main.main(parse(shapes, "--max_steps", "3", "--epochs", "300"))
    said = capsys.readouterr().out
    assert "start training: epochs 0 to 1, 2 steps each, until step 3\n" in said
    assert "1 of 2 epochs in " in said and "2 of 2 epochs in " in said
    assert "of 300" not in said.split("start training")[1]
    assert said.rindex("about 0:00:00 to go") > said.rindex("2 of 2 epochs in ")


def test_classes_come_from_the_annotations_unless_named(shapes: Path, tmp_path: Path):
    assert main.run(flags(shapes, "--max_steps", "1", "--num_classes", "7", "--output_dir", str(tmp_path))) == 0
    assert load_checkpoint(tmp_path / "checkpoint.pth")["model"]["class_embed.weight"].shape[0] == 8


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--num_classes", "2"], "--num_classes 4"),
        (["--batch_size", "9"], "fewer than one batch"),
        (["--train_ann", "absent.json"], "absent.json"),
        (["--coco_path", "absent"], "absent"),
        (["--resume", "absent.pth"], "absent.pth"),
        (["--warmup_steps", "5000"], "--warmup_steps"),
        (["--device", "cuda:77"], "cuda"),
        (["--backbone", "vgg", "--coco_path", "absent"], "vgg"),  # said before the data are looked at
        (["--backbone_weights", "imagenet", "--coco_path", "absent"], "no ImageNet weights for the backbone tiny"),
        (["--backbone_weights", "absent.pth"], "no backbone weights at absent.pth"),
        (["--output_dir", __file__ + "/below"], "cannot be created"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(shapes, tmp_path, capsys, wrong, sentence):
    out = [] if "--output_dir" in wrong else ["--output_dir", str(tmp_path / "out")]
    assert main.run(flags(shapes, *out, *wrong)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_another_architecture_is_named(finished: Path, shapes: Path, capsys: pytest.CaptureFixture):
    assert main.run(flags(shapes, "--eval", "--resume", str(finished / "checkpoint.pth"), "--hidden_dim", "32")) == 1
    error = capsys.readouterr().err
    assert "--hidden_dim 32 contradicts" in error and "made with --hidden_dim 16" in error


def test_two_processes_train_together(shapes: Path, tmp_path: Path):
    run = tmp_path / "run"
    done = torchrun(flags(shapes, "--batch_size", "2", "--epochs", "1", "--output_dir", str(run)), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("start training") == 1  # one process speaks
    assert len((run / "log.txt").read_text().splitlines()) == 1


def test_a_best_checkpoint_that_could_not_be_saved_leaves_its_place_to_the_next(shapes, tmp_path, monkeypatch):
    scores, asked = iter([0.5, 0.3, 0.2]), []

    def save(folder, state, names=("checkpoint.pth",)):
        if state["progress"] is None:  # not the save before an evaluation
            asked.append("checkpoint_best.pth" in names)
        return len(asked) > 1  # the disk was full only once

    monkeypatch.setattr(training.run, "score", lambda stats: next(scores))
    monkeypatch.setattr(RunFolder, "save", save)
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: {})
    assert main.run(flags(shapes, "--output_dir", str(tmp_path), "--epochs", "3")) == 0
    assert asked == [True, True, False]


def full_disk(*args, **more):
    raise OSError(28, "No space left on device")


def test_a_report_that_cannot_be_written_ends_an_evaluation_and_a_training_only_at_its_end(
    shapes, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("training.validation.write_evaluation", full_disk)
    assert main.run(flags(shapes, "--epochs", "2", "--output_dir", str(tmp_path))) == 1
    said = capsys.readouterr()
    sentence = f"the evaluation could not be written to {tmp_path} (No space left on device)"
    assert said.out.count(f"{sentence}: training continues") == 2 and said.err == f"error: {sentence}\n"
    assert load_checkpoint(tmp_path / "checkpoint.pth")["epoch"] == 1
    evaluate = ["--eval", "--resume", str(tmp_path / "checkpoint.pth"), "--output_dir", str(tmp_path)]
    assert main.run(flags(shapes, *evaluate)) == 1
    assert capsys.readouterr().err == f"error: {sentence}: choose another --output_dir, or make room\n"


@pytest.mark.parametrize(("full", "code", "lines"), [([0], 0, 2), ([0, 1], 1, 0), ([1], 1, 1)])
def test_lines_of_the_log_that_are_missing_at_the_end_are_an_error(
    shapes, tmp_path, monkeypatch, capsys, full, code, lines
):
    append = training.run_folder.append_json_line

    def write(file, record):
        return full_disk() if epoch[0] in full else append(file, record)

    log, epoch = RunFolder.log, [-1]

    def count(folder, record):
        epoch[0] = record["epoch"]
        log(folder, record)

    monkeypatch.setattr(training.run_folder, "append_json_line", write)
    monkeypatch.setattr(RunFolder, "log", count)
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: {})
    assert main.run(flags(shapes, "--epochs", "2", "--output_dir", str(tmp_path))) == code
    error, missing = capsys.readouterr().err, 2 - lines
    named = (
        f"{missing} line{'s' * (missing > 1)} of {tmp_path / 'log.txt'} could not be written (No space left on device)"
    )
    assert error == (f"error: {named}\n" if code else "")
    log = tmp_path / "log.txt"
    written = log.read_text().splitlines() if log.exists() else []
    assert [json.loads(line)["epoch"] for line in written] == list(range(lines))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "error: a data loader worker died (DataLoader worker (pid"),
        (lambda: torch.empty(2**61, dtype=torch.uint8), "error: out of memory ("),
        (lambda: list(range(2**60)), "error: out of memory (MemoryError): "),
    ],
    ids=["killed", "torch", "Python"],
)
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_a_worker_that_dies_or_lacks_memory_ends_the_command_with_one_sentence(
    shapes, tmp_path, monkeypatch, capfd, fault, said, split
):
    get = CocoDetection.__getitem__

    def fail(dataset, index):
        if dataset.img_folder.name == split:
            fault()
        return get(dataset, index)

    monkeypatch.setattr(CocoDetection, "__getitem__", fail)
    out = ["--output_dir", str(tmp_path), "--num_workers", "1", "--epochs", "1"]
    assert main.run(flags(shapes, *out)) == 1
    error = capfd.readouterr().err
    assert error.startswith(said) and error.count("\n") == 1, error
    assert (tmp_path / "checkpoint.pth").exists() == (split == "val2017")


def test_out_of_memory_is_one_sentence_that_says_what_to_lower(shapes, monkeypatch, capsys):
    def fail(start):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 8 GiB")

    monkeypatch.setattr(main, "read_data", fail)
    assert main.run(flags(shapes)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: out of memory (CUDA out of memory") and error.count("\n") == 1
    assert "--batch_size" in error
