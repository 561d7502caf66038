"""Timing in turns: what is counted, with how many threads, and how the table reads."""

import pytest
import torch

from tools.exporting import latency
from tools.exporting.latency import ROUNDS, latency_table, time_in_turns


class Clock:
    """A clock that contestants advance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(latency.time, "perf_counter", lambda: self.now)

    def contestant(self, name: str, *seconds: float):
        """Takes the given seconds, call by call, and again from the start."""

        def runs(image, mask):
            count = sum(called == name for called, _ in self.calls)
            self.calls.append((name, torch.get_num_threads()))
            self.now += seconds[count % len(seconds)]
            return image, mask

        return runs


def test_the_second_run_of_each_turn_counts(monkeypatch):
    clock = Clock(monkeypatch)
    threads = torch.get_num_threads()
    contestants = {"one": clock.contestant("one", 9.0, 1.0), "other": clock.contestant("other", 7.0, 2.0)}
    assert time_in_turns(contestants, (64, 96), threads=3) == {"one": 1.0, "other": 2.0}
    assert clock.calls == [("one", 3), ("one", 3), ("other", 3), ("other", 3)] * ROUNDS
    assert torch.get_num_threads() == threads


def test_one_disturbed_round_does_not_change_the_result(monkeypatch):
    clock = Clock(monkeypatch)
    disturbed = [1.0, 50.0, *[1.0, 1.0] * (ROUNDS - 1)]
    assert time_in_turns({"one": clock.contestant("one", *disturbed)}, (64, 96), 1) == {"one": 1.0}


def test_the_table_compares_each_file_with_the_first_model(monkeypatch, tmp_path):
    clock, loaded = Clock(monkeypatch), []

    def load(path, threads, size=None):
        loaded.append((path.suffix, threads, size))
        return clock.contestant(f"{path.suffix}{size}", 0.1 if size else 0.2)

    monkeypatch.setattr(latency, "load_form", load)
    monkeypatch.setattr(latency, "version", lambda package: "1.0")
    files = [tmp_path / "\x1b.onnx", tmp_path / "detr.xml"]
    lines = latency_table({"as built": clock.contestant("model", 0.4)}, files, (64, 96), 2).splitlines()
    assert loaded == [(".onnx", 2, None), (".xml", 2, None), (".xml", 2, (1, 64, 96))]
    assert lines[0].startswith("64 x 96 pixels, 2 threads")
    assert [line.split()[-6:-4] for line in lines[-1:]] == [["100.0", "ms"]]
    assert "\\x1b.onnx, ONNX Runtime 1.0 " in lines[-3] and "200.0 ms   2.00 x" in lines[-3]
    assert "this size alone" in lines[-1] and "4.00 x" in lines[-1] and "as built" in lines[1] and "1.00 x" in lines[1]
