"""A job's time limit: first the training stops, then the job is queued again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

import training.time_limit
from training.time_limit import TimeLimit
from util.signals import StopSignals

NOTICE = 120


@pytest.fixture
def queued() -> Iterator[list[int]]:
    """Grows with every call of the handler that stands in for submitit's."""
    calls: list[int] = []
    numbers = (signal.SIGUSR2, signal.SIGALRM, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGUSR2, lambda number, frame: calls.append(number))
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # submitit's only logs
    yield calls
    signal.alarm(0)
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


def test_a_training_stops_before_the_job_is_queued_again(queued):
    with TimeLimit(signal.SIGUSR2, NOTICE) as limit:
        with StopSignals() as signals:
            assert not limit.reached
            signal.raise_signal(signal.SIGUSR2)
            assert signals.stop and limit.reached and queued == []
        with pytest.raises(SystemExit) as end:
            limit.requeue()
    assert queued == [signal.SIGUSR2] and end.value.code == 0


def test_without_a_training_the_job_is_queued_again_at_once(queued):
    with TimeLimit(signal.SIGUSR2, NOTICE):
        signal.raise_signal(signal.SIGUSR2)
        assert queued == [signal.SIGUSR2]


def test_a_training_that_does_not_stop_is_queued_again_in_time(queued):
    with TimeLimit(signal.SIGUSR2, NOTICE), StopSignals():
        signal.raise_signal(signal.SIGUSR2)
        left = signal.alarm(0)
        assert NOTICE / 2 < left < NOTICE
        signal.raise_signal(signal.SIGALRM)
        assert queued == [signal.SIGUSR2]


def test_a_stop_alone_sets_no_alarm_and_queues_nothing(queued):
    with TimeLimit(signal.SIGUSR2, NOTICE) as limit, StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals.stop and not limit.reached and signal.alarm(0) == 0
    assert queued == []


def test_workers_do_not_answer_for_the_training(queued, monkeypatch):
    another = os.getpid() + 1
    with TimeLimit(signal.SIGUSR2, NOTICE) as limit:
        monkeypatch.setattr(training.time_limit.os, "getpid", lambda: another)
        signal.raise_signal(signal.SIGUSR2)
        assert not limit.reached and queued == []


def test_a_finished_job_is_not_queued_again(queued):
    alarm = signal.getsignal(signal.SIGALRM)
    with TimeLimit(signal.SIGUSR2, NOTICE), StopSignals():
        signal.raise_signal(signal.SIGUSR2)
    assert signal.alarm(0) == 0 and signal.getsignal(signal.SIGALRM) == alarm
    signal.raise_signal(signal.SIGUSR2)
    assert queued == []


def test_where_nobody_queues_the_signal_keeps_its_meaning(queued):
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    with TimeLimit(signal.SIGUSR2, NOTICE):
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
