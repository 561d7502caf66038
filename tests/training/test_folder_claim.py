"""An output folder that holds a run: continued, replaced on request, and otherwise refused before anything is built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import main
from tests.helpers.processes import run_together
from tests.helpers.runs import flags, parse
from training.run_folder import RunFolder
from util.checkpoint import load_checkpoint
from util.output import folder_lock
from util.output.folder_lock import FolderLock, locks_released


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "PATIENCE", 0.0)


@pytest.fixture(scope="module")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch."""
    out = tmp_path_factory.mktemp("trained")
    assert main.run(flags(shapes, "--output_dir", str(out), "--epochs", "1", "--checkpoint_every", "1")) == 0
    return out


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_is_refused_with_the_ways_out(shapes, folder, capsys, monkeypatch):
    before = contents(folder)
    monkeypatch.setattr(main, "read_data", lambda start: pytest.fail("the data are read"))
    assert main.run(flags(shapes, "--output_dir", str(folder))) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: --output_dir {folder} holds a run already (checkpoint.pth)")
    assert all(way in error for way in ("--resume auto", "another folder", "--overwrite")) and error.count("\n") == 1
    assert contents(folder) == before


@pytest.mark.parametrize("left", ["log.txt", "checkpoint0000.pth", "checkpoint_best.pth"])
def test_any_part_of_a_run_is_a_run(shapes, folder, left):
    for file in folder.iterdir():
        if file.is_file() and file.name != left:
            file.unlink()
    assert main.run(flags(shapes, "--output_dir", str(folder))) == 1


def test_weights_from_the_folder_do_not_make_a_new_run_its_continuation(shapes, folder, capsys):
    before = contents(folder)
    assert main.run(flags(shapes, "--output_dir", str(folder), "--init_from", str(folder / "checkpoint.pth"))) == 1
    assert "holds a run already" in capsys.readouterr().err
    assert contents(folder) == before


def test_another_runs_checkpoint_is_not_continued_here(shapes, trained, folder, capsys):
    before = contents(folder)
    other = ["--resume", str(trained / "checkpoint.pth"), "--epochs", "2"]
    assert main.run(flags(shapes, "--output_dir", str(folder), *other)) == 1
    assert f"but not the one of --resume {trained / 'checkpoint.pth'}" in capsys.readouterr().err
    assert contents(folder) == before


@pytest.mark.parametrize("link", [False, True], ids=["a file", "a link"])
def test_its_own_checkpoint_is_continued(shapes, folder, tmp_path, link):
    if link:
        shutil.move(folder / "checkpoint.pth", tmp_path / "elsewhere.pth")
        (folder / "checkpoint.pth").symlink_to(tmp_path / "elsewhere.pth")
    resume = ["--resume", str(folder / "checkpoint.pth"), "--epochs", "2", "--eval_every", "9"]
    assert main.run(flags(shapes, "--output_dir", str(folder), *resume)) == 0
    assert len((folder / "log.txt").read_text().splitlines()) == 2


def test_overwrite_replaces_every_file_of_the_run_and_no_other(shapes, folder):
    for name in ("notes.txt", "eval/mine.json", "my_checkpoint.pth", "checkpoint_mine.pth"):
        (folder / name).write_text("mine")
    stale = ("checkpoint0099.pth", "eval/050.pth", "eval.pth", "panoptic_eval/7.png", "non_finite_rank0.pth")
    for name in (*stale, "tensorboard/events.out.tfevents.1"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("old")
    new = ["--output_dir", str(folder), "--overwrite", "--epochs", "1", "--seed", "7"]
    assert main.run(flags(shapes, *new)) == 0
    after = contents(folder)
    assert {name for name, content in after.items() if content == b"mine"} == {
        "notes.txt",
        "eval/mine.json",
        "my_checkpoint.pth",
        "checkpoint_mine.pth",
    }
    assert b"old" not in after.values() and "checkpoint0000.pth" not in after
    assert len((folder / "log.txt").read_text().splitlines()) == 1
    assert load_checkpoint(folder / "checkpoint.pth")["args"]["seed"] == 7


def test_overwrite_removes_nothing_until_the_new_run_is_certain_to_start(shapes, folder):
    before = contents(folder)
    assert main.run(flags(shapes, "--output_dir", str(folder), "--overwrite", "--batch_size", "9")) == 1
    assert contents(folder) == before


@pytest.mark.parametrize("flag", ["--init_from", "--resume"])
def test_overwrite_does_not_remove_what_the_run_starts_from(shapes, folder, capsys, flag):
    before = contents(folder)
    start = [flag, str(folder / "checkpoint.pth")]
    assert main.run(flags(shapes, "--output_dir", str(folder), "--overwrite", *start)) == 1
    assert f"with it {flag}" in capsys.readouterr().err
    assert contents(folder) == before


def test_overwrite_takes_over_the_run_of_another_folder(shapes, trained, folder):
    resume = ["--resume", str(trained / "checkpoint.pth"), "--epochs", "2", "--eval_every", "9", "--overwrite"]
    assert main.run(flags(shapes, "--output_dir", str(folder), *resume)) == 0
    assert [line.split(b'"epoch": ')[1][:1] for line in (folder / "log.txt").read_bytes().splitlines()] == [b"1"]


@pytest.mark.parametrize("other", [["--resume", "auto"], ["--eval", "--resume", "x.pth"]])
def test_overwrite_contradicts_what_needs_the_run(shapes, tmp_path, capsys, other):
    assert main.run(flags(shapes, "--output_dir", str(tmp_path), "--overwrite", *other)) == 1
    assert "--overwrite deletes the run" in capsys.readouterr().err


def test_auto_starts_anew_where_a_run_left_only_its_log(shapes, folder):
    for file in folder.glob("checkpoint*.pth"):
        file.unlink()
    assert main.run(flags(shapes, "--output_dir", str(folder), "--resume", "auto", "--epochs", "1")) == 0
    assert len((folder / "log.txt").read_text().splitlines()) == 1


def test_evaluating_into_the_folder_of_a_run_leaves_its_training_as_it_was(shapes, folder):
    before = {name: content for name, content in contents(folder).items() if not name.startswith("eval")}
    evaluate = ["--eval", "--resume", str(folder / "checkpoint.pth"), "--output_dir", str(folder)]
    assert main.run(flags(shapes, *evaluate)) == 0
    after = contents(folder)
    assert {name: content for name, content in after.items() if not name.startswith("eval")} == before
    assert "eval.pth" in after


@pytest.mark.parametrize("more", [["--resume", "auto"], ["--overwrite"], ["--eval", "--resume", "auto"]])
def test_a_folder_in_use_is_refused(shapes, folder, capsys, more):
    before = contents(folder)
    with locks_released():
        FolderLock(folder, ".lock", "training").acquire()
        assert main.run(flags(shapes, "--output_dir", str(folder), *more)) == 1
        error = capsys.readouterr().err
    assert f"--output_dir {folder} is in use by process" in error and error.count("\n") == 1
    assert contents(folder) == before


def test_an_evaluation_does_not_keep_a_training_from_starting(folder, shapes):
    with locks_released():
        RunFolder(folder).claim(parse(shapes, "--eval", "--resume", "auto"))
        RunFolder(folder).claim(parse(shapes, "--resume", "auto"))


def test_the_lock_is_given_back_after_an_error(shapes, folder):
    assert main.run(flags(shapes, "--output_dir", str(folder), "--resume", "auto", "--epochs", "1")) == 1  # finished
    assert not list(folder.glob(".*lock"))
    with locks_released():
        RunFolder(folder).claim(parse(shapes, "--resume", "auto"))


def test_all_processes_refuse_alike(shapes, folder, tmp_path):
    before = contents(folder)
    command = flags(shapes, "--output_dir", str(folder), "--batch_size", "2")
    [outcomes] = run_together(2, [command], tmp_path / "pair")
    assert [code for code, _ in outcomes] == [1, 1]
    assert all("holds a run already" in output for _, output in outcomes), outcomes
    assert contents(folder) == before
