"""Signals set flags that are read between steps, on all processes alike; a second Ctrl-C stops immediately."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from datasets.shapes import write_shapes
from tests.helpers.processes import run_together, torchrun
from tests.helpers.runs import flags
from tools.reliability.tiny_run import differences
from util import signals
from util.checkpoint import load_checkpoint
from util.signals import CommandSignals, StopRequested, StopSignals, ignore_in_worker

STEPS = 5  # per epoch
# In its third step, process 0 sends the signal to torchrun, its parent, and waits until it is forwarded. So the step is
# certain, however busy the machine is. Process 1 may receive it at any time.
ASK = """
if os.environ["RANK"] == "0":
    import engine, signal
    check, seen = engine.check_targets, []

    def ask(*args):
        seen.append(None)
        if len(seen) == 3:
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            signal.set_wakeup_fd(writer)
            os.kill(os.getppid(), signal.SIGTERM)
            os.read(reader, 1)
        return check(*args)

    engine.check_targets = ask
"""


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_requested(number, capfd):
    with StopSignals() as requested:
        send(number)
        assert requested.stop and not requested.save
    assert "finishing this step, then saving and stopping" in capfd.readouterr().err


def test_only_the_main_process_reports_it(monkeypatch, capfd):
    monkeypatch.setattr(signals, "is_main_process", lambda: False)
    with StopSignals() as requested:
        send(signal.SIGTERM)
        assert requested.stop
    assert capfd.readouterr().err == ""


def test_sigusr1_wishes_for_a_save():
    with StopSignals() as requested:
        send(signal.SIGUSR1)
        assert requested.save and not requested.stop


def test_a_second_interrupt_stops_at_once(monkeypatch):
    with StopSignals() as requested:
        send(signal.SIGINT)
        monkeypatch.setattr(signals, "ECHO", -1.0)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert requested.stop


def test_the_echo_of_an_interrupt_is_not_a_second_one(monkeypatch):
    monkeypatch.setattr(signals, "ECHO", 60.0)
    with StopSignals() as requested:
        send(signal.SIGINT)
        send(signal.SIGINT)  # the launcher forwards what the terminal has sent to all
        assert requested.stop


def test_what_follows_an_echo_is_counted_from_the_interrupt_itself(monkeypatch):
    moments = iter([100.0, 100.0 + 0.9 * signals.ECHO, 100.0 + 1.8 * signals.ECHO])
    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    with StopSignals():
        send(signal.SIGINT)
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_a_second_sigterm_changes_nothing():
    with StopSignals() as requested:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert requested.stop


def test_handlers_are_restored():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    with pytest.raises(RuntimeError, match="inside"), StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
        raise RuntimeError("inside")
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_outside_of_a_loop_a_stop_ends_the_command_at_once(number):
    with (
        pytest.raises(StopRequested, match=f"^{number.name}: there is no state$") as caught,
        CommandSignals() as command,
    ):
        command.sentence = "there is no state"
        try:
            send(number)
        except Exception:
            pytest.fail("an error was expected by the interrupted code, and this is none")
    assert caught.value.code == 128 + number


def test_outside_of_a_loop_a_wish_to_save_is_answered(capfd):
    with CommandSignals() as command:
        command.advice = "it continues"
        send(signal.SIGUSR1)
    assert capfd.readouterr().err == "\nSIGUSR1: it continues\n"


def test_a_second_interrupt_outside_of_a_loop_stops_at_once(monkeypatch):
    with CommandSignals():
        with pytest.raises(StopRequested):
            send(signal.SIGINT)
        send(signal.SIGTERM)  # it is ending already
        send(signal.SIGINT)  # the launcher's echo
        monkeypatch.setattr(signals, "ECHO", -1.0)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_requests_before_the_loop_reach_it():
    with CommandSignals():
        send(signal.SIGUSR1)
        with pytest.raises(StopRequested):  # which code such as a destructor may swallow
            send(signal.SIGTERM)
        with StopSignals() as requested:
            assert requested.stop and requested.save


def test_after_the_loop_the_outcome_is_decided():
    with CommandSignals():
        with StopSignals() as requested:
            assert not requested.stop and not requested.save
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            send(number)


def test_a_forked_process_is_not_stopped_by_the_handler_of_its_parent():
    with CommandSignals():
        child = os.fork()
        if child == 0:
            try:
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                    send(number)
                os._exit(7)
            finally:
                os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_in_other_threads_signals_are_not_handled_and_nothing_breaks():
    seen = []

    def work() -> None:
        with StopSignals() as requested:
            seen.append(requested.stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_worker_survives_signals_to_the_whole_group_and_obeys_its_parent():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(100)  # ends the process if nothing else does
            ignore_in_worker()
            for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
                send(number)
            while signal.SIGTERM in signal.sigpending():  # until it is handled; a second one would merge with it
                os.sched_yield()
            os.write(writer, b"alive")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(writer)  # so that reading ends if the child is gone
    assert os.read(reader, 5) == b"alive"
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to send")
def test_sigterm_to_torchrun_stops_all_ranks_at_one_step_and_the_run_resumes_exactly(tmp_path: Path):
    write_shapes(tmp_path / "data", train=2 * STEPS, val=3, size=64)
    command = flags(tmp_path / "data", "--batch_size", "1", "--epochs", "2", "--eval_every", "2", "--dropout", "0.1")
    undisturbed = [*command, "--output_dir", str(tmp_path / "undisturbed")]
    stopped = [*command, "--output_dir", str(tmp_path / "stopped"), "--resume", "auto"]

    stop = torchrun(stopped, tmp_path, ASK)
    assert "SIGTERM: finishing this step, then saving and stopping" in stop.stderr, stop
    assert stop.stdout.count("to resume, run the same command with --resume auto") == 1, stop
    saved = load_checkpoint(tmp_path / "stopped" / "checkpoint.pth")
    assert (saved["progress"]["epoch"], saved["progress"]["step"]) == (0, 3)
    assert len(saved["rng"]) == 2

    outcomes = run_together(2, [undisturbed, stopped], tmp_path / "pair")
    assert [code for ranks in outcomes for code, _ in ranks] == [0, 0, 0, 0], outcomes
    assert f"epoch 0, step 3 of {STEPS}" in outcomes[1][0][1]
    assert differences(tmp_path / "stopped", tmp_path / "undisturbed") == []
