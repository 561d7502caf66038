"""One process at a time has a folder; a killed one leaves no lock; where there are no locks, its number decides."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from util.output import folder_lock
from util.output.folder_lock import FolderLock, locks_released, read_owner, refuse_if_locked


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder_lock, "PATIENCE", 0.0)
    with locks_released():
        yield


class Other:
    """Another process that holds the lock of a folder; with `worker`, a fork of it that outlives it."""

    def __init__(self, folder: Path, *, worker: bool = False):
        ready, told = os.pipe()
        self.end, end = os.pipe()  # closed by the last process to end
        self.pid = os.fork()
        if self.pid == 0:
            try:
                FolderLock(folder, ".lock", "training").acquire()
                child = os.fork() if worker else 1
                os.write(told, f"{child:9}".encode())
                signal.alarm(100)
                signal.pause()
            finally:
                os._exit(1)
        os.close(end)
        os.close(told)
        self.workers = [int(os.read(ready, 9)) for _ in range(1 + worker)]
        os.close(ready)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def test_a_lock_says_who_holds_it_and_leaves_nothing(tmp_path: Path):
    folder = tmp_path / "deep" / "run"
    with locks_released():
        FolderLock(folder, ".lock", "training").acquire()
        owner = read_owner(folder / ".lock")
        assert (owner["pid"], owner["host"], owner["doing"]) == (os.getpid(), socket.gethostname(), "training")
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_beside_the_lock_stays(tmp_path: Path):
    with locks_released():
        FolderLock(tmp_path / "run", ".lock", "training").acquire()
        (tmp_path / "run" / "log.txt").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["log.txt"]


def test_a_second_process_is_refused_by_the_name_of_the_first(tmp_path: Path):
    other = Other(tmp_path)
    with pytest.raises(ValueError, match=rf"in use by process {other.pid} on {socket.gethostname()} \(training since"):
        FolderLock(tmp_path, ".lock", "training").acquire()
    with pytest.raises(ValueError, match=f"in use by process {other.pid} "):
        refuse_if_locked(tmp_path / ".lock")
    assert read_owner(tmp_path / ".lock")["pid"] == other.pid  # its lock is as it was
    other.kill()


@pytest.mark.parametrize("worker", [False, True], ids=["alone", "with a worker that lives on"])
def test_a_killed_process_leaves_no_lock(tmp_path: Path, worker: bool):
    other = Other(tmp_path, worker=worker)
    other.kill()
    assert (tmp_path / ".lock").exists()
    refuse_if_locked(tmp_path / ".lock")
    FolderLock(tmp_path, ".lock", "training").acquire()
    assert read_owner(tmp_path / ".lock")["pid"] == os.getpid()
    if worker:
        os.kill(max(other.workers), signal.SIGKILL)


def test_a_lock_file_that_was_replaced_meanwhile_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The last owner removes the file between this process's opening and locking it."""
    (tmp_path / ".lock").touch()
    flock, calls = folder_lock.fcntl.flock, []

    def remove_first(descriptor, how):
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(how)
        flock(descriptor, how)

    monkeypatch.setattr(folder_lock.fcntl, "flock", remove_first)
    FolderLock(tmp_path, ".lock", "training").acquire()
    assert len(calls) == 2 and read_owner(tmp_path / ".lock")["pid"] == os.getpid()


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "fcntl", None)


def write_owner(folder: Path, **owner: object) -> None:
    (folder / ".lock").write_text(json.dumps({"doing": "training", "since": "noon"} | owner))


def test_without_locks_a_living_process_of_this_machine_holds_the_folder(tmp_path, no_locks):
    write_owner(tmp_path, pid=os.getppid(), host=socket.gethostname())
    with pytest.raises(ValueError, match=f"in use by process {os.getppid()} .*delete .*\\.lock"):
        FolderLock(tmp_path, ".lock", "training").acquire()
    with pytest.raises(ValueError, match="in use by"):
        refuse_if_locked(tmp_path / ".lock")


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"pid": "x"}', '{"pid": -1}', '{"pid": 99999999999999999999}'])
def test_without_locks_an_owner_that_cannot_be_read_is_none(tmp_path, no_locks, content, capsys):
    (tmp_path / ".lock").write_text(content)
    FolderLock(tmp_path, ".lock", "training").acquire()
    assert "has no locks" in capsys.readouterr().out


def test_without_locks_a_number_that_another_process_got_holds_nothing(tmp_path, no_locks):
    write_owner(tmp_path, pid=os.getppid(), host=socket.gethostname(), started="long ago")
    FolderLock(tmp_path, ".lock", "training").acquire()


def test_without_locks_the_process_of_another_machine_is_named(tmp_path, no_locks, capsys):
    write_owner(tmp_path, pid=7, host="elsewhere")
    FolderLock(tmp_path, ".lock", "training").acquire()
    assert "last used by process 7 on elsewhere (training since noon)" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="--output_dir .*run cannot be written to .*: choose another folder"):
        FolderLock(tmp_path / "file" / "run", ".lock", "training").acquire()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot be written to \(No space left on device\)"):
        FolderLock(tmp_path / "new" / "run", ".lock", "training").acquire()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
