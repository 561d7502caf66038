"""A run's files: saves that fail are survived, the newest checkpoint is found, the log fits the checkpoint."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
import torch

from tests.helpers.processes import leave_behind
from training import run_folder
from training.run_folder import RunFolder, load_resumable
from util.checkpoint import load_checkpoint
from util.errors import CheckpointError

WEIGHTS = {"model": {"x": torch.zeros(1)}}


def break_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the disk be full after so many bytes of each file."""
    real_open = open

    def limited(path, mode="r", *args, **kwargs):
        file = real_open(path, mode, *args, **kwargs)
        if "b" not in mode or "r" in mode:
            return file
        write, written = file.write, [0]

        def write_some(data):
            written[0] += len(data)
            if written[0] > after:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(data)

        class Limited:
            write = staticmethod(write_some)

            def __getattr__(self, name):
                return getattr(file, name)

            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

        return Limited()

    monkeypatch.setattr("builtins.open", limited)


@pytest.mark.parametrize("after", [0, 1000, 5000])
def test_a_full_disk_leaves_the_checkpoint_before_and_is_said(tmp_path, monkeypatch, capsys, after):
    folder = RunFolder(tmp_path)
    assert folder.save({"epoch": 0, "x": torch.zeros(5000)})
    break_disk(monkeypatch, after)
    assert not folder.save({"epoch": 1, "x": torch.ones(5000)})
    monkeypatch.undo()
    assert "No space left on device" in folder.failed and "is intact" in folder.failed
    assert "training continues" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "checkpoint.pth")["epoch"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth"]
    assert folder.save({"epoch": 2}) and folder.failed == ""


@pytest.mark.parametrize(
    ("there", "kept"),
    [
        ((), "none was saved before"),
        (("checkpoint_best.pth",), "the one saved before is intact: .*checkpoint_best.pth"),
        (("checkpoint_best.pth", "checkpoint9999.pth", "checkpoint10000.pth"), "is intact: .*checkpoint10000.pth"),
        (("checkpoint_best.pth", "checkpoint.pth"), "is intact: .*checkpoint.pth"),
    ],
)
def test_a_new_file_that_meets_a_full_disk_names_what_can_be_gone_on_from(tmp_path, monkeypatch, there, kept):
    folder = RunFolder(tmp_path)
    assert folder.save(WEIGHTS, there)
    break_disk(monkeypatch, 0)
    assert not folder.save(WEIGHTS, ["checkpoint20000.pth"])
    monkeypatch.undo()
    assert re.search(f"{kept}$", folder.failed), folder.failed


def test_what_cannot_be_saved_for_a_fault_of_the_program_is_not_survived(tmp_path, monkeypatch):
    with pytest.raises(TypeError, match="plain"):
        RunFolder(tmp_path).save({"model": object()})
    monkeypatch.setattr(torch, "save", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):  # no disk's fault, though torch raises it
        RunFolder(tmp_path).save({"model": {}})


def test_checkpoints_that_can_wait_take_a_tenth_of_the_time(tmp_path, monkeypatch):
    now = [1000.0]

    def save_for_two_seconds(*args):
        now[0] += 2

    monkeypatch.setattr(run_folder.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(run_folder, "save_checkpoint", save_for_two_seconds)
    folder = RunFolder(tmp_path)
    assert folder.save_is_due()
    folder.save(WEIGHTS)
    due = []
    for _ in range(21):
        now[0] += 1
        due.append(folder.save_is_due())
    assert due == [False] * 19 + [True] * 2


def test_a_save_that_failed_does_not_wait(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.save(WEIGHTS)
    monkeypatch.setattr(run_folder, "save_checkpoint", lambda *args: (_ for _ in ()).throw(OSError("no")))
    folder.save(WEIGHTS)
    assert folder.save_is_due()


def test_a_log_that_cannot_be_written_is_said_and_written_later(tmp_path, capsys):
    (tmp_path / "log.txt").mkdir()
    folder = RunFolder(tmp_path)
    folder.log({"epoch": 0})
    folder.log({"epoch": 1})
    assert "1 line of " in capsys.readouterr().out
    assert "2 lines of " in folder.faults["log"] and "could not be written (Is a directory)" in folder.faults["log"]
    (tmp_path / "log.txt").rmdir()
    folder.log({"epoch": 2})
    assert (tmp_path / "log.txt").read_bytes() == b'{"epoch": 0}\n{"epoch": 1}\n{"epoch": 2}\n'
    assert folder.faults == {}


def test_without_a_path_nothing_is_written():
    folder = RunFolder("")
    assert folder.save({"epoch": 0}) and not folder.writes and folder.newest() is None
    folder.log({"epoch": 0})
    folder.clean()
    folder.align_log(3, {"epoch": 3})


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "is_main_process", lambda: False)
    folder = RunFolder(tmp_path)
    assert folder.save({"epoch": 0})
    folder.log({"epoch": 0})
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_writes_that_were_cut_off_are_removed(tmp_path):
    folder = RunFolder(tmp_path)
    folder.save({"epoch": 0})
    (tmp_path / "eval").mkdir()
    leave_behind(tmp_path / "checkpoint.pth")
    leave_behind(tmp_path / "eval/per_class.json")
    assert len([*tmp_path.rglob(".detr-*.tmp")]) == 2
    (tmp_path / ".notes.tmp").write_bytes(b"the user's own")
    folder.clean()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".notes.tmp", "checkpoint.pth", "eval"]


def test_the_newest_checkpoint_is_checkpoint_pth(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.newest() is None
    folder.save(WEIGHTS | {"epoch": 3}, ["checkpoint.pth"])
    folder.save(WEIGHTS | {"epoch": 2}, ["checkpoint0002.pth", "checkpoint_best.pth"])
    path, content = folder.newest()
    assert path.name == "checkpoint.pth" and content["epoch"] == 3


def test_a_damaged_checkpoint_gives_way_to_the_latest_kept_one(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    for epoch in (9, 19):
        folder.save(WEIGHTS | {"epoch": epoch}, [f"checkpoint{epoch:04}.pth"])
    (tmp_path / "checkpoint.pth").write_bytes(b"PK half of it")
    path, content = folder.newest()
    assert path.name == "checkpoint0019.pth" and content["epoch"] == 19
    assert "trying an older one" in capsys.readouterr().out


def damage(path: Path) -> None:
    """Change some bytes in the middle, which only the checksums of the archive see."""
    content = bytearray(path.read_bytes())
    middle = content.index(b"\x07" * 4000) + 1000
    content[middle : middle + 64] = b"\x08" * 64
    path.write_bytes(content)


BYTES = {"model": {"x": torch.full((9000,), 7, dtype=torch.uint8)}}


@pytest.mark.parametrize(
    ("there", "damaged", "chosen"),
    [
        ({"checkpoint": 5, "checkpoint0003": 3, "checkpoint_best": 4}, ["checkpoint"], "checkpoint_best"),
        ({"checkpoint": 5, "checkpoint0003": 3, "checkpoint_best": 2}, ["checkpoint"], "checkpoint0003"),
        ({"checkpoint0001": 8, "checkpoint0003": 3}, [], "checkpoint0001"),  # a copy under another name
        (
            {"checkpoint": 5, "checkpoint9999": 9, "checkpoint_best": 4},
            ["checkpoint", "checkpoint9999"],
            "checkpoint_best",
        ),
        ({"checkpoint": 2, "checkpoint0099": 99}, [], "checkpoint"),  # the run went back
    ],
)
def test_the_furthest_intact_checkpoint_replaces_a_damaged_one(tmp_path, monkeypatch, there, damaged, chosen):
    folder, read = RunFolder(tmp_path), []
    for name, epoch in there.items():
        folder.save(BYTES | {"epoch": epoch, "step": 10 * epoch}, [f"{name}.pth"])
    for name in damaged:
        damage(tmp_path / f"{name}.pth")
    load = run_folder.load_checkpoint
    monkeypatch.setattr(run_folder, "load_checkpoint", lambda path: read.append(path.stem) or load(path))
    path, content = folder.newest()
    assert path.stem == chosen and content["epoch"] == there[chosen]
    assert read == [*damaged, chosen]


def test_a_checkpoint_that_replaces_a_damaged_one_is_named(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    folder.save(BYTES | {"epoch": 5}, ["checkpoint.pth", "checkpoint0005.pth"])
    damage(tmp_path / "checkpoint.pth")
    folder.newest()
    said = capsys.readouterr().out
    assert f"{tmp_path / 'checkpoint.pth'} is" in said and "trying an older one" in said
    assert f"resuming from {tmp_path / 'checkpoint0005.pth'}, which ends with epoch 5" in said


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    (tmp_path / "checkpoint.pth").write_bytes(b"PK half of it")
    with pytest.raises(CheckpointError, match="none of the checkpoints"):
        RunFolder(tmp_path).newest()


def test_a_checkpoint_without_weights_is_nothing_to_go_on_from(tmp_path):
    folder = RunFolder(tmp_path)
    folder.save({"epoch": 3})
    folder.save(WEIGHTS | {"epoch": 1}, ["checkpoint0001.pth"])
    assert folder.newest()[1]["epoch"] == 1
    with pytest.raises(CheckpointError, match="checkpoint.pth"):
        load_resumable(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize(
    ("before", "epoch", "after"),
    [
        (b'{"epoch": 0}\n{"epoch": 1}\n', 1, b'{"epoch": 0}\n{"epoch": 1}\n'),
        (b'{"epoch": 0}\n{"epoch": 1}\n{"epoch": 2}\n', 0, b'{"epoch": 0}\n'),
        (b'{"epoch": 0}\n', 1, b'{"epoch": 0}\n{"epoch": 1}\n'),
        (b'{"epoch": 0}\n{"epo', 1, b'{"epoch": 0}\n{"epoch": 1}\n'),
        (b"", 0, b'{"epoch": 0}\n'),
        (b'{"epoch": 0}\n', -1, b""),
    ],
)
def test_the_log_ends_with_the_checkpoints_epoch(tmp_path: Path, before, epoch, after):
    (tmp_path / "log.txt").write_bytes(before)
    RunFolder(tmp_path).align_log(epoch, {"epoch": epoch} if epoch >= 0 else None)
    assert (tmp_path / "log.txt").read_bytes() == after


def test_a_log_is_completed_without_loss_while_it_is_not_sure_that_training_goes_on(tmp_path: Path):
    (tmp_path / "log.txt").write_bytes(b'{"epoch": 0}\n{"epoch": 5}\n{"epo')
    RunFolder(tmp_path).align_log(3, {"epoch": 3}, drop_later=False)
    assert (tmp_path / "log.txt").read_bytes() == b'{"epoch": 0}\n{"epoch": 5}\n'
    RunFolder(tmp_path).align_log(6, {"epoch": 6}, drop_later=False)
    assert (tmp_path / "log.txt").read_bytes() == b'{"epoch": 0}\n{"epoch": 5}\n{"epoch": 6}\n'
