"""Signals at any time in the life of the command: one sentence, a sensible exit code, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import engine
import main
from tests.helpers.processes import REPOSITORY, clean_environment
from tests.helpers.runs import flags


@pytest.fixture(scope="module")
def checkpoint(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    assert main.run(flags(shapes, "--max_steps", "1", "--eval_every", "9", "--output_dir", str(out))) == 0
    return out / "checkpoint.pth"


def send_while(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, *numbers: int) -> None:
    """Send this process signals when it first calls a function."""
    function, left = getattr(owner, name), list(numbers)

    def work(*args, **more):
        while left:
            os.kill(os.getpid(), left.pop(0))
        return function(*args, **more)

    monkeypatch.setattr(owner, name, work)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_before_the_training_says_that_nothing_is_lost(shapes, tmp_path, monkeypatch, capsys, number, code):
    send_while(monkeypatch, main, "read_data", number)
    assert main.run(flags(shapes, "--output_dir", str(tmp_path / "run"))) == code
    said = capsys.readouterr()
    assert f"{number.name}: stopped before the training began; nothing is lost" in said.out and said.err == ""
    assert list(tmp_path.iterdir()) == []


def test_a_wish_to_save_before_the_training_is_granted_after_its_first_step(shapes, tmp_path, monkeypatch, capfd):
    send_while(monkeypatch, main, "read_data", signal.SIGUSR1)
    more = ["--batch_size", "2", "--epochs", "1", "--output_dir", str(tmp_path)]
    assert main.run(flags(shapes, *more)) == 0
    said = capfd.readouterr()
    assert "SIGUSR1: there is nothing to save yet; the state is saved after the first step" in said.err
    assert "saved epoch 0, step 1 of 4" in said.out


def test_a_stop_in_an_evaluation_has_no_result_and_says_so(shapes, checkpoint, tmp_path, monkeypatch, capsys):
    send_while(monkeypatch, engine, "check_targets", signal.SIGTERM)
    evaluate = ["--eval", "--resume", str(checkpoint), "--output_dir", str(tmp_path / "results")]
    assert main.run(flags(shapes, *evaluate)) == 143
    said = capsys.readouterr()
    assert "SIGTERM: the evaluation was stopped; it has no result" in said.out and said.err == ""
    assert list(tmp_path.iterdir()) == []


def test_a_wish_to_save_does_not_end_an_evaluation(shapes, checkpoint, monkeypatch, capfd):
    send_while(monkeypatch, engine, "check_targets", signal.SIGUSR1)
    assert main.run(flags(shapes, "--eval", "--resume", str(checkpoint))) == 0
    said = capfd.readouterr()
    assert "SIGUSR1: an evaluation has no state to save; it continues" in said.err and "Averaged stats" in said.out


def run_main(folder: Path, before: str, *command: str) -> subprocess.CompletedProcess[str]:
    """`python main.py` with Python code that runs when Python starts."""
    (folder / "sitecustomize.py").write_text(dedent(before))
    environment = clean_environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), environment["PYTHONPATH"]])
    start = [sys.executable, "main.py", *command]
    return subprocess.run(start, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900)


WHEN_IMPORTED = """
    import os, signal, sys

    class Sender:
        def find_spec(name, *_):
            if name == "training.run":
                for number in (signal.SIGUSR1, signal.SIGTERM):
                    os.kill(os.getpid(), number)

    sys.meta_path.insert(0, Sender)
"""
AT_EXIT = """
    import atexit, os, signal

    @atexit.register
    def send():
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        print("still here")
"""


def test_signals_during_the_imports(tmp_path: Path):
    done = run_main(tmp_path, WHEN_IMPORTED)
    assert done.returncode == 143 and done.stdout == "", done
    said = done.stderr.split("\n")
    assert said == ["", "SIGUSR1: there is nothing to save yet", "", *said[3:4], ""], done
    assert said[3].startswith("SIGTERM: stopped while the program was loading"), done


def test_signals_at_the_very_end_change_nothing(shapes: Path, checkpoint: Path, tmp_path: Path):
    done = run_main(tmp_path, AT_EXIT, *flags(shapes, "--eval", "--resume", str(checkpoint)))
    assert done.returncode == 0 and done.stderr == "" and done.stdout.endswith("still here\n"), done
