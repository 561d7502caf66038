"""The tools that kill trainings and fill the disk: they pass here, and detect a broken writer."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import main
import util.checkpoint
from tests.helpers.processes import start, wait
from tests.helpers.runs import flags
from tools.reliability import full_disk, torture
from tools.reliability.tiny_run import differences
from training import run_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="runs are forked and killed by SIGKILL")


def write_in_place(path: str, write: Callable[[BinaryIO], Any]) -> None:
    """What `util.files.write_atomically` must not be; on a slow disk, so that a kill can hit it."""

    class Slow:
        def __init__(self, file: BinaryIO):
            self.file = file
            self.flush = file.flush

        def write(self, content: Any) -> int:
            content = memoryview(content).cast("B")
            for begin in range(0, len(content), 200_000):
                self.file.write(content[begin : begin + 200_000])
                self.file.flush()
                os.fsync(self.file.fileno())
            return len(content)

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        write(Slow(file))


def run_in_process(tool: Callable[[list[str]], int], folder: str, flags: list[str], broken: bool) -> None:
    """Run a tool in a separate process, from which runs can be forked."""
    if broken:
        util.checkpoint.write_atomically = write_in_place
    with Path(folder, "said.txt").open("w") as said, redirect_stdout(said), redirect_stderr(said):
        code = tool([*flags, "--out", f"{folder}/out"])
    os._exit(code)


def outcome(tool: Callable[[list[str]], int], folder: Path, *flags: str, broken: bool = False) -> tuple[int, str]:
    """Exit code and output of the tool."""
    code = wait(start(run_in_process, [(tool, str(folder), list(flags), broken)]))[0]
    return code, (folder / "said.txt").read_text()


def count(name: str, said: str) -> int:
    return int(re.search(rf"^{name}.*?(\d+)$", said, re.MULTILINE)[1])


def test_killed_trainings_resume_bit_for_bit_and_a_full_disk_spares_the_checkpoint(tmp_path: Path):
    code, said = outcome(torture.run, tmp_path, "--kills", "5", "--seed", "3")
    assert code == 0, said
    assert count("kills", said) == 5
    assert count("checkpoints loaded after kills", said) >= 1
    assert count("trainings finished bit for bit as undisturbed", said) >= 1
    assert count("saves that met a full disk", said) >= 1
    assert count("violations", said) == 0


def test_a_writer_that_writes_in_place_is_found(tmp_path: Path):
    code, said = outcome(torture.run, tmp_path, "--kills", "40", "--seed", "3", broken=True)
    assert code == 1, said
    assert count("violations", said) >= 1
    assert re.search(
        r"^kill \d+: after a kill, checkpoint \S+\.pth is (truncated or damaged|empty)", said, re.MULTILINE
    ), said


def test_a_file_that_raises_half_way_acts_as_a_full_disk(tmp_path: Path):
    code, said = outcome(full_disk.run, tmp_path, "--no_tmpfs")
    assert code == 0 and count("violations", said) == 0, said
    assert count(re.escape("saves that met a full disk (a file that raises ENOSPC)"), said) >= 1


def test_a_folder_with_other_files_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert torture.run(["--kills", "1", "--out", str(tmp_path)]) == 1
    assert "holds files that are not from torture: choose another folder" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


class Killed(BaseException):
    """Stands for SIGKILL, at a known moment."""


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_kill_right_after_a_checkpoint_loses_nothing_that_belongs_to_it(
    epoch: int, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    command = flags(shapes, "--epochs", "2", "--checkpoint_every", "1", "--resume", "auto", "--output_dir")
    assert main.run([*command, str(tmp_path / "undisturbed")]) == 0

    save = run_folder.save_checkpoint

    def save_and_die(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        if path.name == "checkpoint.pth" and state["epoch"] == epoch:
            raise Killed

    with monkeypatch.context() as deadly, pytest.raises(Killed):
        deadly.setattr(run_folder, "save_checkpoint", save_and_die)
        main.run([*command, str(tmp_path / "killed")])
    assert main.run([*command, str(tmp_path / "killed")]) == epoch  # behind the last one nothing is left to train
    assert differences(tmp_path / "killed", tmp_path / "undisturbed") == []
