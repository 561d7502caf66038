"""The progress of a loop: lines, the bar, the total time, and values to watch."""

import io
import os
import struct
from types import SimpleNamespace

import pytest
import torch

from util import progress as util_progress
from util.logging import get_logger
from util.meters import MetricLogger


class Clock:
    """A clock that advances only on request."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(util_progress, "time", clock)
    monkeypatch.setattr(util_progress, "memory", lambda: {"memory/rss_mb": 512.25})
    return clock


def batches(clock, count, images=4, wait=0.5):
    for _ in range(count):
        clock.now += wait
        yield SimpleNamespace(tensors=torch.zeros(images, 3, 2, 2)), ()


class Sized:
    """An iterable with a length, like a loader."""

    def __init__(self, items, length):
        self.items, self.length = items, length

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter(self.items)


def run(clock, logger, count, print_freq, sized=True, stop=None, **where):
    """Batches of 4 images, 0.5 s of waiting and 1.5 s of work each; `stop` leaves the loop at that batch."""
    items = batches(clock, count)
    steps = logger.log_every(Sized(items, count) if sized else items, print_freq, "Epoch: [0]", **where)
    for number, _ in enumerate(steps):
        clock.now += 1.5
        logger.update(loss=float(number))
        if number == stop:
            break


def places(lines):
    return [line.split("  ")[1] for line in lines]


def test_plain_lines_come_every_print_freq_batches_and_at_the_end(clock, capsys):
    run(clock, MetricLogger(delimiter="  "), 12, 5)
    lines = capsys.readouterr().out.splitlines()
    assert places(lines[:-1]) == ["[ 0/12]", "[ 5/12]", "[10/12]", "[11/12]"]
    assert lines[1] == (
        "Epoch: [0]  [ 5/12]  eta: 0:00:12  images/s: 2.0  loss: 2.0000 (2.5000)  time: 2.0000  data: 0.5000 (25%)  "
        "rss: 512 MB"
    )
    assert lines[-1] == "Epoch: [0] Total time: 0:00:24 (2.0000 s / it, 2.0 images/s)"


def test_a_brief_loop_is_one_line_with_its_averages(clock, capsys):
    logger = MetricLogger(delimiter="  ")
    run(clock, logger, 4, 5, brief=True)
    assert capsys.readouterr().out == ""
    total = "Epoch: [0] Total time: 0:00:08 (2.0000 s / it, 2.0 images/s)"
    assert logger.summary() == f"{total}  Averaged stats: loss: 1.0000 (1.5000)"


def test_a_brief_loop_that_takes_long_shows_that_it_is_alive(clock, capsys):
    run(clock, MetricLogger(delimiter="  "), 12, 20, brief=True)
    assert places(capsys.readouterr().out.splitlines()) == ["[ 5/12]", "[11/12]"]  # every 12 seconds


def test_a_loop_of_print_freq_batches_is_not_brief(clock, capsys):
    logger = MetricLogger(delimiter="  ")
    run(clock, logger, 5, 5, brief=True)
    assert places(capsys.readouterr().out.splitlines()[:-1]) == ["[0/5]", "[4/5]"]
    assert logger.summary() == "Averaged stats: loss: 2.0000 (2.0000)"


def test_a_loader_without_a_length_is_reported_without_an_eta(clock, capsys):
    run(clock, MetricLogger(delimiter="  "), 3, 2, sized=False)
    lines = capsys.readouterr().out.splitlines()
    assert places(lines[:-1]) == ["[0]", "[2]"]
    assert "eta" not in lines[0]


def test_batches_that_are_not_images_are_timed_too(clock, capsys):
    assert list(MetricLogger().log_every(["a", "b"], 1)) == ["a", "b"]
    assert "images/s" not in capsys.readouterr().out


def test_an_empty_loader_passes_without_batches(clock, capsys):
    assert list(MetricLogger().log_every([], 10, "Test:")) == []
    assert capsys.readouterr().out == "Test: Total time: 0:00:00 (0.0000 s / it)\n"


def test_print_freq_must_be_positive():
    with pytest.raises(ValueError, match="print_freq must be at least 1, got 0"):
        list(MetricLogger().log_every([1], 0))


def test_a_terminal_gets_a_bar_with_the_same_facts(clock, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("LINES", "50")
    logger = MetricLogger()
    for number, _ in enumerate(logger.log_every(Sized(batches(clock, 3), 3), 1, "Epoch: [0]")):
        clock.now += 1.5
        logger.update(loss=7.0)
        if number == 0:
            get_logger().info("a message between two steps")
    drawn = screen.getvalue().replace("\n", "\r").split("\r")
    last = [line for line in drawn if line.startswith("Epoch: [0] 100%")][-1]
    for fact in ("3/3", "images/s: 2.0", "loss: 7.0000 (7.0000)", "time: 2.0000", "data: 0.5000 (25%)", "rss: 512 MB"):
        assert fact in last
    assert drawn.count("a message between two steps") == 1
    assert "Epoch: [0] Total time: 0:00:06 (2.0000 s / it, 2.0 images/s)" in drawn


def test_the_last_line_is_printed_if_the_length_is_unknown(clock, capsys):
    run(clock, MetricLogger(delimiter="  "), 2, 5, sized=False)
    assert places(capsys.readouterr().out.splitlines()[:-1]) == ["[0]", "[1]"]


def test_a_loop_that_is_left_early_ends_with_its_last_line_and_the_total(clock, capsys):
    logger = MetricLogger(delimiter="  ")
    run(clock, logger, 12, 5, stop=7)
    lines = capsys.readouterr().out.splitlines()
    assert places(lines[:-1]) == ["[ 0/12]", "[ 5/12]", "[ 7/12]"]
    assert "loss: 3.0000 (3.5000)" in lines[-2]
    assert lines[-1] == "Epoch: [0] Total time: 0:00:16 (2.0000 s / it, 2.0 images/s)"
    run(clock, logger, 12, 5, stop=5)  # its last line is one that was due anyway
    assert places(capsys.readouterr().out.splitlines()[:-1]) == ["[ 0/12]", "[ 5/12]"]


def test_an_error_in_the_loop_reaches_the_caller(clock, capsys):
    with pytest.raises(FloatingPointError, match="nan"):
        for _ in MetricLogger().log_every(Sized(batches(clock, 3), 3), 1, "Epoch: [0]"):
            raise FloatingPointError("nan")
    assert "Epoch: [0] Total time" in capsys.readouterr().out


def test_an_interrupted_epoch_continues_at_its_batch_with_the_time_left(clock, capsys):
    first = MetricLogger(delimiter="  ")
    state = {}
    for number, _ in enumerate(first.log_every(Sized(batches(clock, 12), 12), 5, "Epoch: [0]")):
        clock.now += 1.5
        if number == 6:
            state = first.state_dict()
            break
    assert state["progress"] == {"seconds": 14.0, "steps": 7, "images": 28}
    capsys.readouterr()

    clock.now += 1000  # nothing was running
    second = MetricLogger(delimiter="  ")
    second.load_state_dict(state)
    assert second.state_dict() == state  # also before the loop has begun
    run(clock, second, 5, 5, start=7)
    lines = capsys.readouterr().out.splitlines()
    assert places(lines[:-1]) == ["[10/12]", "[11/12]"]
    assert "eta: 0:00:02" in lines[0]
    assert lines[-1] == "Epoch: [0] Total time: 0:00:24 (2.0000 s / it, 2.0 images/s)"
    clock.now += 50  # of evaluation
    assert second.state_dict()["progress"] == {"seconds": 24.0, "steps": 12, "images": 48}
    run(clock, second, 1, 5)  # the loop after that is a new one
    assert "Total time: 0:00:02" in capsys.readouterr().out


def test_the_length_of_an_epoch_can_be_given(clock, capsys):
    run(clock, MetricLogger(delimiter="  "), 100, 5, start=3, length=18, stop=4)
    lines = capsys.readouterr().out.splitlines()
    assert places(lines[:-1]) == ["[ 5/18]", "[ 7/18]"]
    assert "eta: 0:00:24" in lines[0]


def test_a_bar_starts_where_the_epoch_was_left_and_stays_one_line(clock, monkeypatch):
    termios = pytest.importorskip("termios", reason="a terminal of a chosen width can be made on Unix only")
    fcntl = pytest.importorskip("fcntl")
    controller, terminal = os.openpty()

    def widen(columns):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    screen = io.StringIO()
    screen.isatty, screen.fileno = lambda: True, lambda: terminal
    monkeypatch.setattr("sys.stdout", screen)
    widen(200)
    logger = MetricLogger()
    for number, _ in enumerate(logger.log_every(Sized(batches(clock, 5), 5), 1, "Epoch: [0]", start=7)):
        clock.now += 1.5
        logger.update(loss=7.0)
        if number == 1:
            widen(70)
        if number == 3:
            break
    os.close(terminal)
    os.close(controller)
    drawn = screen.getvalue().replace("\n", "\r").split("\r")
    bars = [line for line in drawn if "%|" in line]
    assert "7/12" in bars[0] and "11/12" in bars[-1]
    assert any("rss: 512 MB" in line and 70 < len(line) < 200 for line in bars)
    narrow = [line for line in bars if any(place in line for place in (" 9/12", "10/12", "11/12"))]
    assert all("images/s: 2.0" in line and len(line.rstrip()) < 70 for line in narrow)
    assert "Epoch: [0] Total time: 0:00:08 (2.0000 s / it, 2.0 images/s)" in drawn


def test_only_the_main_process_reports(clock, monkeypatch, capsys):
    monkeypatch.setattr("util.logging.is_main_process", lambda: False)
    run(clock, MetricLogger(), 2, 1)
    assert capsys.readouterr().out == ""


def test_speed_and_memory_are_available_inside_the_loop(clock):
    logger = MetricLogger()
    assert logger.watched() == {}
    for _ in logger.log_every(batches(clock, 3), 100):
        clock.now += 1.5
        assert logger.watched() == {
            "time/step_seconds": 2.0,
            "time/data_seconds": 0.5,
            "time/data_share": 25.0,
            "time/images_per_second": 2.0,
            "memory/rss_mb": 512.25,
        }


def test_speed_is_that_of_the_last_steps(clock):
    logger = MetricLogger()
    for number, _ in enumerate(logger.log_every(batches(clock, 30), 100)):
        clock.now += 9.5 if number < 10 else 1.5
    assert logger.watched()["time/step_seconds"] == 2.0


def test_images_per_second_are_those_of_all_processes(clock, monkeypatch):
    monkeypatch.setattr(util_progress, "get_world_size", lambda: 8)
    logger = MetricLogger()
    run(clock, logger, 2, 1)
    assert logger.watched()["time/images_per_second"] == 16.0


def test_memory_is_that_of_this_process_and_of_cuda_once_in_use(monkeypatch):
    resource = pytest.importorskip("resource", reason="the peak to compare with is known on Unix only")
    values = util_progress.memory()
    if "memory/rss_mb" not in values:
        pytest.skip("this system does not tell the resident memory without a package")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert 0.1 * peak < values["memory/rss_mb"] < 1.1 * peak  # the kernel counts the peak a little late
    assert "memory/cuda_peak_mb" not in values or torch.cuda.is_initialized()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    assert util_progress.memory()["memory/cuda_peak_mb"] == 3.0


def test_memory_is_left_out_where_the_system_does_not_report_it(monkeypatch):
    def refuse(*_):
        raise FileNotFoundError("/proc/self/statm")

    monkeypatch.setattr(util_progress.Path, "read_text", refuse)
    assert "memory/rss_mb" not in util_progress.memory()
